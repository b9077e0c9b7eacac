//! A state that is damaged, beside a log that is not: made anew.
//!
//! The log has every entry: they are applied again. The log begins later: another member gives a copy of its state, and
//! the log goes on from there. Only the vote and the entries that are not committed yet are a member's word to the
//! others, and both are in the log; so the state may come from anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use store::Error;
use tokio::time::timeout;

use super::OpenError;
use super::identity::Identity;
use super::joining::ask;
use super::options::Settled;
use super::peer::address::Address;
use super::peer::link;
use super::peer::network::Network;
use super::peer::tls::Armour;
use super::peer::wire::{Answered, Denial, Hello, Lane, Question};
use super::place::Taken;
use crate::log::Log;
use crate::state::{Dump, LeaseHook, State};

/// For one piece of a copy.
const PIECE_LIMIT: Duration = Duration::from_secs(30);

/// Whom to ask.
pub struct Others<'o> {
    network: Arc<dyn Network>,
    armour: Option<&'o Armour>,
    hello: Hello,
    addresses: BTreeSet<Address>,
}

impl<'o> Others<'o> {
    pub fn of(settled: &Settled, identity: &Identity, armour: Option<&'o Armour>) -> Self {
        let own = &settled.options.advertise_peer_urls;
        let told = settled.initial.values().flatten();
        let known = identity.initial.values().flat_map(|initial| &initial.peer_urls);
        let addresses = told.chain(known).filter(|url| !own.contains(url) && !identity.peer_urls.contains(url));
        let hello = Hello { cluster: Some(identity.cluster), from: Some(identity.member), to: None, lane: Lane::Bulk };
        let addresses = addresses.filter_map(|url| url.parse().ok()).collect();
        Self { network: settled.options.network.clone(), armour, hello, addresses }
    }
}

/// Errors: what was damaged, when there is no way to make it anew; then it is still where it was.
pub async fn state(
    damage: Error,
    taken: &Taken,
    log: &Log,
    hook: LeaseHook,
    others: &Others<'_>,
) -> Result<State, OpenError> {
    tracing::error!(%damage, "the state is damaged");
    let purged = log.facts().marks.purged;
    taken.put_state_aside().await?;
    let mut state = taken.state(hook).await?;
    let Some(purged) = purged else {
        tracing::info!("the state is made anew from the log");
        return Ok(state);
    };
    let mut why = "there are no other members".to_owned();
    for address in &others.addresses {
        match copy(others, address, &state, purged.index).await {
            Ok(dump) => {
                tracing::info!(%address, upto = dump.marks().index(), "the state is made anew from another member's");
                if taken.is_inline() {
                    state.replace(&dump)?;
                    return Ok(state);
                }
                let replaced = tokio::task::spawn_blocking(move || state.replace(&dump).map(|()| state)).await;
                return Ok(replaced.map_err(|error| Error::storage("replace the state", error))??);
            }
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    drop(state);
    taken.put_state_back().await?;
    let Error::Corrupt { path, reason } = damage else { return Err(damage.into()) };
    let reason = format!(
        "{reason}. The log begins after entry {}, and no other member gives a copy of its state ({why}). Start this \
         member again when another one runs; or remove it from the cluster and add it anew with an empty folder; or \
         restore a snapshot",
        purged.index
    );
    Err(Error::Corrupt { path, reason }.into())
}

/// What another member has now, checked. One that is behind this member's log would leave a gap.
async fn copy(others: &Others<'_>, address: &Address, state: &State, purged: u64) -> Result<Dump, String> {
    let told = |error: Error| error.to_string();
    let opened = link::open(&*others.network, others.armour, std::slice::from_ref(address), &others.hello).await;
    let (mut pipe, ..) = opened?;
    let mut incoming = state.reader().receive().map_err(told)?;
    let mut question = Question::Copy;
    loop {
        let answered = timeout(PIECE_LIMIT, ask(&mut pipe, &question)).await;
        match answered.map_err(|_| "it does not answer in time")?? {
            Answered::CopyBegun => question = Question::CopyPiece,
            Answered::CopyPiece(piece) if piece.is_empty() => break,
            // Nothing else runs yet that would wait for the disk meanwhile.
            Answered::CopyPiece(piece) => incoming.write(piece).map_err(told)?,
            Answered::Denied(Denial::Fault(fault)) => return Err(Error::from(fault).to_string()),
            other => return Err(format!("it answered {other:?}")),
        }
    }
    let dump = incoming.finish().map_err(told)?;
    if dump.marks().index() < purged {
        return Err(format!("it has applied entry {} only, and this member's log begins later", dump.marks().index()));
    }
    Ok(dump)
}
