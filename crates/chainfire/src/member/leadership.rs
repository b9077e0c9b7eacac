//! What changes when the leader or the membership changes, and what the leader does by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use store::{Error, LeaseId};
use tokio::sync::oneshot;

use super::leases::Leading;
use super::peer::wire::{Answered, Question};
use super::types::Reply;
use super::{Ended, Inner};
use crate::command::{Answer, Proposal, Refusal, Request};

/// Leases that are revoked with one entry of the log.
const REVOKES_MAX: usize = 512;

/// Between two attempts of what has to be done once.
const RETRY: Duration = Duration::from_millis(100);

/// Between two looks at whether everything is still well.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The log is cut behind the state when it occupies more, however few entries that may be.
const LOG_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Follows who leads and who is a member.
pub async fn follow(inner: Arc<Inner>) {
    let mut server = inner.standing.server();
    let mut expelled = inner.peers.expelled();
    let (mut leader, mut leading) = (None, None);
    loop {
        let current = {
            let server = server.borrow_and_update();
            let members = server.membership_config.membership();
            for (id, seat) in members.nodes().filter(|(id, _)| **id != inner.identity.member) {
                inner.peers.book.write(*id, &seat.contact);
            }
            let before = server.committed_membership_config.membership();
            inner.peers.keep_only(|id| members.get_node(&id).is_some() || before.get_node(&id).is_some());
            server.current_leader
        };
        if is_removed(&inner, *expelled.borrow_and_update()) {
            tracing::error!("this member was removed from the cluster, and ends");
            inner.end(Ended::Removed);
            return;
        }
        if current != leader {
            leader = current;
            match current {
                Some(id) => {
                    tracing::info!(leader = format_args!("{id:x}"), term = inner.standing.term(), "a member leads");
                }
                None => tracing::info!("nobody leads"),
            }
            inner.standing.hear();
            inner.proposer.wake();
        }
        let leads = inner.standing.leads();
        if leads != leading {
            leading = leads;
            inner.standing.settle(0);
            inner.leases.follow();
            if let Some(term) = leads {
                tokio::spawn(settle(inner.clone(), term));
            }
        }
        tokio::select! {
            changed = server.changed() => if changed.is_err() {
                return;
            },
            changed = expelled.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// By what was agreed on here, or by what others say that has been agreed on later.
fn is_removed(inner: &Inner, expelled: u64) -> bool {
    let committed = inner.standing.committed();
    let (me, joined) = (inner.identity.member, inner.identity.joined);
    // Of one that joins, the log begins with a time before that.
    let since = committed.log_id().as_ref().map(|id| id.index).filter(|since| *since >= joined);
    let gone_here = since.is_some() && committed.get_node(&me).is_none();
    gone_here || expelled > since.unwrap_or(0).max(joined)
}

/// A new leader begins its duties when it has applied everything from before its time.
async fn settle(inner: Arc<Inner>, term: u64) {
    while inner.standing.leads() == Some(term) {
        let settled = async {
            let index = inner.reads.index().await?;
            inner.reader.wait_applied(index).await
        };
        match settled.await {
            Ok(_) => {
                inner.leases.lead(term, || inner.reader.leases());
                inner.standing.settle(term);
                return;
            }
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::debug!(%error, term, "the leader has not settled yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Ends leases that have run out.
pub async fn expire(inner: Arc<Inner>) {
    let mut watch = inner.leases.watch();
    loop {
        let leading = watch.borrow_and_update().clone();
        let expiring = async {
            match &leading {
                Some(leading) => expire_next(&inner, leading).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expiring => {}
            changed = watch.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn expire_next(inner: &Inner, Leading { term, lessor }: &Leading) {
    let mut ids = vec![lessor.run_out().await];
    while ids.len() < REVOKES_MAX
        && let Some(id) = lessor.run_out().now_or_never()
    {
        ids.push(id);
    }
    let revoked = revoke(inner, *term, &ids).await;
    let mut answers = revoked.unwrap_or_default().into_iter();
    for id in ids {
        match answers.next() {
            Some(Ok(_) | Err(Refusal::Store(Error::LeaseNotFound { .. }))) => lessor.remove(id),
            Some(Err(_)) | None => lessor.retry(id),
        }
    }
}

/// In this term or never: another leader may know better when they end.
async fn revoke(inner: &Inner, term: u64, ids: &[LeaseId]) -> Option<Vec<Result<Answer, Refusal>>> {
    let requests = ids.iter().map(|id| Request::Revoke(*id)).collect();
    let (reply, answer) = oneshot::channel();
    let reply = Reply::new(|result| {
        let _ = reply.send(result);
    });
    let proposal = Proposal { requests: Arc::new(requests) };
    inner.core.write(proposal).responder(reply).with_leader(term).await.ok()?;
    let written = answer.await.ok()??.ok()?;
    Some(written.data.answers)
}

/// Tells the others this member's name and where clients reach it.
pub async fn publish(inner: Arc<Inner>, name: String, client_urls: Vec<String>) {
    let me = inner.identity.member;
    loop {
        let membership = inner.standing.committed();
        let known = membership.get_node(&me);
        if known.is_some_and(|seat| seat.contact.name == name && seat.contact.client_urls == client_urls) {
            return;
        }
        if inner.standing.membership().get_node(&me).is_some() {
            let question = Question::Publish { id: me, name: name.clone(), client_urls: client_urls.clone() };
            match inner.lead.ask(question).await {
                Ok(Answered::Done) => {}
                Ok(other) => tracing::warn!(?other, "the name of this member is not published"),
                Err(error) => tracing::debug!(%error, "the name of this member is not published yet"),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Notices the end of Raft, and keeps the log short.
pub async fn upkeep(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let running = inner.core.metrics().borrow_watched().running_state.clone();
        if let Err(fatal) = running {
            tracing::error!(%fatal, "this member cannot go on");
            inner.end(Ended::Failed(fatal.to_string()));
            return;
        }
        let facts = inner.log.facts();
        if facts.disk_bytes <= LOG_BYTES_MAX {
            continue;
        }
        let snapshot = inner.standing.data().snapshot.map_or(0, |id| id.index);
        // What is in the files of the state is not needed again here; whoever lacks it gets a snapshot.
        let upto = snapshot.min(inner.reader.durable_index());
        if upto > facts.first {
            let _ = inner.core.trigger().purge_log(upto).await;
        } else {
            let _ = inner.core.trigger().snapshot().await;
        }
    }
}
