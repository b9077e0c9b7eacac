//! Who is a member, and which changes of that are allowed. Pure.
//!
//! A member that is added as a voter is a learner to Raft until it has caught up ([`Seat::to_vote`]); to everybody else
//! it votes from the beginning, as in etcd. So a cluster never waits for a member that has not come yet.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{ChangeMembers, Membership};

use super::types::{Contact, MemberId, Seat};
use crate::door::host::{MemberChange, MemberError, MemberFact};

/// Members that only listen, as in etcd: each costs the leader as much as one that votes.
const LEARNERS_MAX: usize = 1;

/// A learner that has so much of the leader's log may vote, in percent; as in etcd.
const READY_PERCENT: u64 = 90;

pub type Members = Membership<MemberId, Seat>;

/// Ascending by id.
pub fn facts(members: &Members) -> Vec<MemberFact> {
    let voters: BTreeSet<MemberId> = members.voter_ids().collect();
    let fact = |(id, seat): (&MemberId, &Seat)| MemberFact {
        id: *id,
        contact: seat.contact.clone(),
        learner: !voters.contains(id) && !seat.to_vote,
    };
    members.nodes().map(fact).collect()
}

/// What has to be proposed to Raft, and whether removed voters stay as learners: never.
pub type Step = ChangeMembers<MemberId, Seat>;

/// `fresh` is the id for a member that is added; `ready` tells how much of the log a learner has, and the leader.
pub fn decide(
    members: &Members,
    change: MemberChange,
    fresh: MemberId,
    progress: impl Fn(MemberId) -> Option<(u64, u64)>,
) -> Result<Step, MemberError> {
    let known = facts(members);
    let find = |id: MemberId| known.iter().find(|fact| fact.id == id).ok_or(MemberError::NotFound(id));
    let taken = |urls: &[String], except: Option<MemberId>| {
        let others = known.iter().filter(|fact| Some(fact.id) != except);
        let mut taken = others.flat_map(|fact| &fact.contact.peer_urls);
        if taken.any(|url| urls.contains(url)) { Err(MemberError::PeerUrlExists) } else { Ok(()) }
    };
    match change {
        MemberChange::Add { contact, learner } => {
            taken(&contact.peer_urls, None)?;
            if known.iter().any(|fact| fact.id == fresh) {
                return Err(MemberError::Exists(fresh));
            }
            if learner {
                if known.iter().filter(|fact| fact.learner).count() >= LEARNERS_MAX {
                    return Err(MemberError::TooManyLearners);
                }
            } else {
                enough_with_one_more(&known)?;
            }
            let contact = Contact { name: String::new(), client_urls: Vec::new(), ..contact };
            Ok(ChangeMembers::AddNodes(BTreeMap::from([(fresh, Seat { contact, to_vote: !learner })])))
        }
        MemberChange::Remove(id) => {
            let gone = find(id)?;
            if !gone.learner {
                enough_without(&known, id)?;
            }
            let ids = BTreeSet::from([id]);
            let votes = members.voter_ids().any(|voter| voter == id);
            Ok(if votes { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) })
        }
        MemberChange::Promote(id) => {
            if !find(id)?.learner {
                return Err(MemberError::NotLearner(id));
            }
            match progress(id) {
                Some((has, of)) if has.saturating_mul(100) >= of.saturating_mul(READY_PERCENT) => {}
                Some(_) | None => return Err(MemberError::LearnerNotReady),
            }
            enough_with_one_more(&known)?;
            Ok(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
        }
        MemberChange::Update { id, peer_urls } => {
            find(id)?;
            taken(&peer_urls, Some(id))?;
            let seat = members.get_node(&id).cloned().unwrap_or_default();
            let contact = Contact { peer_urls, ..seat.contact };
            Ok(ChangeMembers::SetNodes(BTreeMap::from([(id, Seat { contact, ..seat })])))
        }
    }
}

/// Name and addresses that a member tells of itself. `None` when they are known already.
pub fn publish(
    members: &Members,
    id: MemberId,
    name: String,
    client_urls: Vec<String>,
) -> Result<Option<Step>, MemberError> {
    let seat = members.get_node(&id).ok_or(MemberError::NotFound(id))?;
    let contact = Contact { name, client_urls, peer_urls: seat.contact.peer_urls.clone() };
    if contact == seat.contact {
        return Ok(None);
    }
    Ok(Some(ChangeMembers::SetNodes(BTreeMap::from([(id, Seat { contact, ..seat.clone() })]))))
}

/// Two sets of voters agree on everything while one takes over from the other. What ends that, when it has not ended.
pub fn unfinished(members: &Members) -> Option<Step> {
    (members.get_joint_config().len() > 1).then(|| ChangeMembers::AddVoterIds(BTreeSet::new()))
}

/// The first one that was added as a voter and has caught up.
pub fn promotable(members: &Members, progress: impl Fn(MemberId) -> Option<(u64, u64)>) -> Option<(MemberId, Step)> {
    let caught_up = |id: MemberId| progress(id).is_some_and(|(has, of)| has.saturating_add(LAG_MAX) >= of);
    let (id, seat) = members.nodes().find(|(id, seat)| seat.to_vote && caught_up(**id))?;
    let seat = Seat { to_vote: false, ..seat.clone() };
    let steps =
        vec![ChangeMembers::SetNodes(BTreeMap::from([(*id, seat)])), ChangeMembers::AddVoterIds(BTreeSet::from([*id]))];
    Some((*id, ChangeMembers::Batch(steps)))
}

/// Entries of the log that one who is about to vote may lack: what comes within a moment.
const LAG_MAX: u64 = 64;

/// Members that vote, and how many of them have ever started, without `except`.
fn voters(known: &[MemberFact], except: Option<MemberId>) -> (usize, usize) {
    let voters = known.iter().filter(|fact| !fact.learner && Some(fact.id) != except);
    let started = voters.clone().filter(|fact| !fact.contact.name.is_empty()).count();
    (voters.count(), started)
}

/// etcd's rule: those that have started have to be a majority of those there will be. The second member of a cluster is
/// allowed, or there could never be one.
fn enough_with_one_more(known: &[MemberFact]) -> Result<(), MemberError> {
    let (voters, started) = voters(known, None);
    let majority = voters.div_ceil(2) + 1;
    if started >= majority || (voters == 1 && started == 1) { Ok(()) } else { Err(MemberError::Unhealthy) }
}

fn enough_without(known: &[MemberFact], id: MemberId) -> Result<(), MemberError> {
    let (voters, started) = voters(known, Some(id));
    if started > voters / 2 { Ok(()) } else { Err(MemberError::Unhealthy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(id: MemberId, started: bool) -> Seat {
        let name = if started { format!("m{id}") } else { String::new() };
        let contact = Contact { name, peer_urls: vec![format!("http://m{id}:1")], client_urls: Vec::new() };
        Seat { contact, to_vote: false }
    }

    fn members(voters: &[MemberId], others: &[(MemberId, Seat)]) -> Members {
        let mut nodes: BTreeMap<_, _> = voters.iter().map(|id| (*id, seat(*id, true))).collect();
        nodes.extend(others.iter().cloned());
        Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
    }

    fn add(url: &str, learner: bool) -> MemberChange {
        MemberChange::Add { contact: Contact { peer_urls: vec![url.to_owned()], ..Contact::default() }, learner }
    }

    fn decided(members: &Members, change: MemberChange) -> Result<Step, MemberError> {
        decide(members, change, 99, |_| Some((100, 100)))
    }

    #[test]
    fn what_is_added_listens_first_and_counts_as_voting() {
        let step = decided(&members(&[1], &[]), add("http://new:1", false)).unwrap();
        let ChangeMembers::AddNodes(nodes) = step else { panic!("{step:?}") };
        assert!(nodes[&99].to_vote);
        let after = members(&[1], &[(99, nodes[&99].clone())]);
        assert!(!facts(&after)[1].learner);
        let Some((99, ChangeMembers::Batch(_))) = promotable(&after, |_| Some((1, 1))) else { panic!("not promoted") };
        assert!(promotable(&after, |_| Some((1, 1000))).is_none(), "it lags");
        assert!(promotable(&after, |_| None).is_none(), "it was never reached");
    }

    #[test]
    fn each_reason_has_its_own_refusal() {
        let three = members(&[1, 2, 3], &[]);
        assert!(matches!(decided(&three, add("http://m2:1", false)), Err(MemberError::PeerUrlExists)));
        assert!(matches!(decided(&three, MemberChange::Remove(7)), Err(MemberError::NotFound(7))));
        assert!(matches!(decided(&three, MemberChange::Promote(1)), Err(MemberError::NotLearner(1))));
        assert!(matches!(decide(&three, add("http://new:1", false), 1, |_| None), Err(MemberError::Exists(1))));
        let update = MemberChange::Update { id: 1, peer_urls: vec!["http://m2:1".to_owned()] };
        assert!(matches!(decided(&three, update), Err(MemberError::PeerUrlExists)));
        let learning = members(&[1, 2, 3], &[(4, seat(4, true))]);
        assert!(matches!(decided(&learning, add("http://new:1", true)), Err(MemberError::TooManyLearners)));
        let promote = decide(&learning, MemberChange::Promote(4), 0, |_| Some((89, 100)));
        assert!(matches!(promote, Err(MemberError::LearnerNotReady)));
        let promote = decide(&learning, MemberChange::Promote(4), 0, |_| None);
        assert!(matches!(promote, Err(MemberError::LearnerNotReady)));
        assert!(matches!(decided(&learning, MemberChange::Promote(4)), Ok(ChangeMembers::AddVoterIds(_))));
        assert!(matches!(decided(&learning, MemberChange::Remove(4)), Ok(ChangeMembers::RemoveNodes(_))));
        assert!(matches!(decided(&learning, MemberChange::Remove(3)), Ok(ChangeMembers::RemoveVoters(_))));
    }

    #[test]
    fn too_few_that_have_started_change_nothing() {
        let one = members(&[1], &[]);
        assert!(decided(&one, add("http://new:1", false)).is_ok(), "the second is allowed");
        assert!(matches!(decided(&one, MemberChange::Remove(1)), Err(MemberError::Unhealthy)), "the last one stays");
        let mut waiting = seat(2, false);
        waiting.to_vote = true;
        let two = members(&[1], &[(2, waiting)]);
        assert!(matches!(decided(&two, add("http://new:1", false)), Err(MemberError::Unhealthy)));
        assert!(decided(&two, MemberChange::Remove(2)).is_ok());
        assert!(matches!(decided(&two, MemberChange::Remove(1)), Err(MemberError::Unhealthy)));
    }

    #[test]
    fn a_change_that_stands_still_is_finished() {
        assert!(unfinished(&members(&[1, 2], &[])).is_none());
        let nodes: BTreeMap<_, _> = [1, 2].map(|id| (id, seat(id, true))).into();
        let joint = Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], nodes).unwrap();
        assert!(matches!(unfinished(&joint), Some(ChangeMembers::AddVoterIds(ids)) if ids.is_empty()));
    }

    #[test]
    fn only_news_are_published() {
        let one = members(&[1], &[]);
        assert!(publish(&one, 1, "m1".to_owned(), Vec::new()).unwrap().is_none());
        assert!(publish(&one, 1, "m1".to_owned(), vec!["http://m1:2".to_owned()]).unwrap().is_some());
        assert!(matches!(publish(&one, 7, String::new(), Vec::new()), Err(MemberError::NotFound(7))));
    }
}
