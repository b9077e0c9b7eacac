//! Before a member has anything of its own: what do the others say.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::OpenError;
use super::identity::Identity;
use super::options::Settled;
use super::peer::address::Address;
use super::peer::frame::{self, MESSAGE_BYTES_MAX};
use super::peer::link;
use super::peer::network::{Network, Pipe};
use super::peer::pace;
use super::peer::tls::Armour;
use super::peer::wire::{Answered, Facts, Hello, Lane, Question};
use super::types::MemberId;

/// For the others to answer. Those who begin together are not there yet, and nobody waits for them long.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// One question after the other on a connection of its own.
pub async fn ask(pipe: &mut Pipe, question: &Question) -> Result<Answered, String> {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, 1, question).map_err(|error| error.to_string())?;
    pace::write(pipe, &bytes).await.map_err(|error| error.to_string())?;
    loop {
        let taken = frame::take(pipe, MESSAGE_BYTES_MAX).await.map_err(|error| error.to_string())?;
        let frame = taken.ok_or("it closed the connection")?;
        if !frame.is_sign_of_life() {
            return frame::message(&frame.message).map_err(|error| error.to_string());
        }
    }
}

async fn ask_facts(network: &dyn Network, armour: Option<&Armour>, address: &Address) -> Result<Facts, String> {
    let hello = Hello { cluster: None, from: None, to: None, lane: Lane::Talk };
    let (mut pipe, ..) = link::open(network, armour, std::slice::from_ref(address), &hello).await?;
    match ask(&mut pipe, &Question::Facts).await {
        Ok(Answered::Facts(facts)) => Ok(facts),
        Ok(other) => Err(format!("{address} answered {other:?}")),
        Err(error) => Err(format!("{address}: {error}")),
    }
}

/// What each of the others in the initial cluster says, with its address.
async fn ask_all(
    settled: &Settled,
    network: &Arc<dyn Network>,
    armour: Option<&Armour>,
) -> Vec<(String, Result<Facts, String>)> {
    let others = settled.initial.iter().filter(|(name, _)| **name != settled.options.name);
    let asking = others.flat_map(|(_, urls)| urls).map(async |url| {
        let address = match url.parse() {
            Ok(address) => address,
            Err(error) => return (url.clone(), Err(format!("{error}"))),
        };
        let asked = timeout(ASK_LIMIT, ask_facts(&**network, armour, &address)).await;
        (url.clone(), asked.unwrap_or_else(|_| Err(format!("{address} does not answer"))))
    });
    join_all(asking).await
}

fn same(own: &[String], theirs: &[String]) -> bool {
    let (mut own, mut theirs) = (own.to_vec(), theirs.to_vec());
    own.sort();
    theirs.sort();
    own == theirs
}

/// Who this member is in a cluster that has it in its list.
pub async fn find(
    settled: &Settled,
    network: &Arc<dyn Network>,
    armour: Option<&Armour>,
) -> Result<Identity, OpenError> {
    let options = &settled.options;
    let mut silent = Vec::new();
    let mut heard: Option<(String, u64)> = None;
    for (url, answer) in ask_all(settled, network, armour).await {
        let facts = match answer {
            Ok(facts) => facts,
            Err(why) => {
                silent.push(why);
                continue;
            }
        };
        match &heard {
            Some((peer, cluster)) if *cluster != facts.cluster => {
                return Err(OpenError::OtherCluster {
                    own: *cluster,
                    theirs: facts.cluster,
                    peer: format!("{peer}, {url}"),
                });
            }
            Some(_) => {}
            None => heard = Some((url, facts.cluster)),
        }
        let own = facts.members.iter().find(|fact| same(&fact.contact.peer_urls, &options.advertise_peer_urls));
        if let Some(own) = own {
            if !own.contact.name.is_empty() {
                return Err(OpenError::DataGone { dir: options.place.path(), member: own.id });
            }
            let (name, token) = (&options.name, &options.initial_cluster_token);
            let urls = options.advertise_peer_urls.clone();
            return Ok(Identity::joining(facts.cluster, own.id, facts.since, name, token, urls));
        }
    }
    match heard {
        Some(_) => Err(OpenError::NotAdded { peer_urls: options.advertise_peer_urls.join(",") }),
        None => Err(OpenError::NobodyAnswers(silent.join("; "))),
    }
}

/// One of the first members begins. If the others have begun long ago, it has lost what it promised them.
pub async fn check_first(
    settled: &Settled,
    identity: &Identity,
    network: &Arc<dyn Network>,
    armour: Option<&Armour>,
) -> Result<(), OpenError> {
    let me: MemberId = identity.member;
    for (peer, answer) in ask_all(settled, network, armour).await {
        let Ok(facts) = answer else { continue };
        if facts.cluster != identity.cluster {
            return Err(OpenError::OtherCluster { own: identity.cluster, theirs: facts.cluster, peer });
        }
        let begun = facts.members.iter().any(|fact| !fact.contact.name.is_empty());
        let own = facts.members.iter().find(|fact| fact.id == me);
        let gone = match own {
            Some(own) => !own.contact.name.is_empty(),
            None => begun,
        };
        if gone {
            return Err(OpenError::DataGone { dir: settled.options.place.path(), member: me });
        }
    }
    Ok(())
}
