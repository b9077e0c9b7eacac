//! Members come, vote, lead, move and go.

use std::time::Duration;

use chainfire::door::Host;
use chainfire::door::host::{MemberChange, MemberError};
use chainfire::member::types::Contact;
use chainfire::member::{Ended, Member, OpenError, Options};
use store::Store;
use tokio::time::{sleep, timeout};

use crate::member_cluster::{Cluster, WAIT_MAX, get, id_of, members_of, put_soon, until, url};

fn add(name: &str, learner: bool) -> MemberChange {
    MemberChange::Add { contact: Contact { peer_urls: vec![url(name)], ..Contact::default() }, learner }
}

/// All of them have said who they are.
async fn all_known(member: &Member) {
    until("all have told their names", async || {
        members_of(member).await.iter().all(|fact| !fact.contact.name.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_tell_their_names_and_where_clients_reach_them() {
    let cluster = Cluster::in_memory(3).await;
    let member = cluster.member(0);
    all_known(member).await;
    let facts = members_of(member).await;
    let mut ids: Vec<u64> = facts.iter().map(|fact| fact.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, facts.iter().map(|fact| fact.id).collect::<Vec<_>>(), "ascending");
    for (n, node) in cluster.nodes.iter().enumerate() {
        let fact = facts.iter().find(|fact| fact.contact.name == node.name).expect("it is in the list");
        assert_eq!(fact.id, cluster.member(n).id());
        assert_eq!(fact.contact.peer_urls, [url(&node.name)]);
        assert_eq!(fact.contact.client_urls, [format!("http://{}:2379", node.name)]);
        assert!(!fact.learner);
    }
    let header = member.header();
    assert_eq!((header.member_id, header.term), (member.id(), cluster.term(0).await));
    assert_eq!(header.cluster_id, cluster.member(1).header().cluster_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_one_grows_to_three_and_shrinks_again() {
    let mut cluster = Cluster::on_disk(1).await;
    put_soon(&*cluster.store(0), "old", "1").await;
    all_known(cluster.member(0)).await;
    for name in ["m2", "m3"] {
        let new = cluster.prepare(name);
        let refused = cluster.try_start(new).await;
        assert!(matches!(refused, Err(OpenError::NotAdded { .. })), "{:?}", refused.err());
        let members = cluster.member(0).change(add(name, false)).await.unwrap();
        let fact = members.iter().find(|fact| fact.contact.peer_urls == [url(name)]).unwrap();
        assert!(fact.contact.name.is_empty() && !fact.learner, "as etcd tells it: it votes, and has not started");
        put_soon(&*cluster.store(0), "meanwhile", name).await;
        cluster.start(new).await;
        all_known(cluster.member(0)).await;
        assert_eq!(get(&*cluster.store(new), "old").await.as_deref(), Some("1"));
        let member = cluster.member(new).clone();
        until("it votes", async || (!Host::status(&*member).await.ok()?.learner).then_some(())).await;
    }
    cluster.agree().await;
    // The two that are left after one has died are a majority of three only.
    cluster.kill(0);
    put_soon(&*cluster.store(1), "new", "2").await;
    cluster.restart(0).await;
    assert_eq!(get(&*cluster.store(0), "new").await.as_deref(), Some("2"));
    let members = members_of(cluster.member(1)).await;
    let gone = id_of(&members, "m1");
    let after = cluster.member(1).change(MemberChange::Remove(gone)).await.unwrap();
    assert_eq!(after.len(), 2);
    let ended = timeout(WAIT_MAX, cluster.member(0).ended()).await.expect("the removed one ends");
    assert_eq!(ended, Ended::Removed);
    put_soon(&*cluster.store(2), "newest", "3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_while_it_was_removed_is_told() {
    let mut cluster = Cluster::on_disk(3).await;
    all_known(cluster.member(0)).await;
    let away = cluster.follower().await;
    let id = cluster.member(away).id();
    cluster.stop(away).await;
    let here = (away + 1) % 3;
    cluster.member(here).change(MemberChange::Remove(id)).await.unwrap();
    put_soon(&*cluster.store(here), "key", "").await;
    cluster.restart(away).await;
    let ended = timeout(WAIT_MAX, cluster.member(away).ended()).await.expect("it ends");
    assert_eq!(ended, Ended::Removed);
    let again = cluster.member(here).change(MemberChange::Remove(id)).await;
    assert!(matches!(again, Err(MemberError::NotFound(gone)) if gone == id), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_remove_itself() {
    let mut cluster = Cluster::on_disk(3).await;
    all_known(cluster.member(0)).await;
    let leader = cluster.leader().await;
    let id = cluster.member(leader).id();
    cluster.member(leader).change(MemberChange::Remove(id)).await.unwrap();
    let ended = timeout(WAIT_MAX, cluster.member(leader).ended()).await.expect("it ends");
    assert_eq!(ended, Ended::Removed);
    cluster.stop(leader).await;
    put_soon(&*cluster.store((leader + 1) % 3), "key", "").await;
    assert_eq!(members_of(cluster.member((leader + 1) % 3)).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_learns_and_is_promoted_when_it_has_caught_up() {
    let mut cluster = Cluster::on_disk(1).await;
    all_known(cluster.member(0)).await;
    for n in 0..20 {
        put_soon(&*cluster.store(0), &format!("key/{n}"), "").await;
    }
    let learner = cluster.prepare("m2");
    let members = cluster.member(0).change(add("m2", true)).await.unwrap();
    let id = id_of(&members, "m2");
    assert!(members.iter().any(|fact| fact.id == id && fact.learner));
    let early = cluster.member(0).change(MemberChange::Promote(id)).await;
    assert!(matches!(early, Err(MemberError::LearnerNotReady)), "{early:?}");
    let second = cluster.member(0).change(add("m3", true)).await;
    assert!(matches!(second, Err(MemberError::TooManyLearners)), "{second:?}");
    cluster.start(learner).await;
    assert_eq!(get(&*cluster.store(learner), "key/19").await.as_deref(), Some(""), "a learner passes questions on");
    // It does not vote, so it is not waited for.
    sleep(Duration::from_millis(500)).await;
    assert!(members_of(cluster.member(0)).await.iter().any(|fact| fact.id == id && fact.learner));
    let promoted =
        until("it is promoted", async || cluster.member(learner).change(MemberChange::Promote(id)).await.ok());
    assert!(promoted.await.iter().all(|fact| !fact.learner));
    let twice = cluster.member(0).change(MemberChange::Promote(id)).await;
    assert!(matches!(twice, Err(MemberError::NotLearner(_))), "{twice:?}");
    let unknown = cluster.member(0).change(MemberChange::Promote(7)).await;
    assert!(matches!(unknown, Err(MemberError::NotFound(7))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_over() {
    let cluster = Cluster::in_memory(3).await;
    all_known(cluster.member(0)).await;
    let old = cluster.leader().await;
    let new = (old + 1) % 3;
    let to = cluster.member(new).id();
    // Asked of one that does not lead.
    cluster.member((old + 2) % 3).transfer(to).await.unwrap();
    put_soon(&*cluster.store(old), "key", "").await;
    assert_eq!(cluster.leader().await, new);
    cluster.member(new).transfer(to).await.expect("it leads already");
    let nobody = cluster.member(old).transfer(7).await;
    assert!(matches!(nobody, Err(MemberError::NotFound(7) | MemberError::BadTransferee(7))), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::on_disk(3).await;
    all_known(cluster.member(0)).await;
    let moving = cluster.follower().await;
    let id = cluster.member(moving).id();
    let here = (moving + 1) % 3;
    cluster.stop(moving).await;
    let taken = MemberChange::Update { id, peer_urls: vec![url(&cluster.nodes[here].name)] };
    let refused = cluster.member(here).change(taken).await;
    assert!(matches!(refused, Err(MemberError::PeerUrlExists)), "{refused:?}");
    let update = MemberChange::Update { id, peer_urls: vec!["http://elsewhere:1".to_owned()] };
    cluster.member(here).change(update).await.unwrap();
    let moved = "http://elsewhere:1".to_owned();
    let name = cluster.nodes[moving].name.clone();
    let options = Options {
        listen_peer_urls: vec![moved.clone()],
        advertise_peer_urls: vec![moved.clone()],
        initial_cluster: vec![(name, moved)],
        ..cluster.options(moving)
    };
    let member = Member::open(options).await.unwrap();
    put_soon(&*cluster.store(here), "key", "found").await;
    assert_eq!(get(&member, "key").await.as_deref(), Some("found"));
    assert_eq!(member.id(), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_can_reach_stays_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = chainfire::member::Place::Folder(dir.path().to_path_buf());
    let member = Member::open(Options { place, ..Options::default() }).await.unwrap();
    put_soon(&member, "key", "").await;
    let refused = member.change(add("m2", false)).await;
    assert!(matches!(refused, Err(MemberError::Alone)), "{refused:?}");
    member.close().await.unwrap();
    assert!(matches!(member.range(store::Range::key("key")).await, Err(store::Error::Closed)));
}
