//! What a member does for the others.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::Snapshot;
use openraft::entry::RaftEntry;
use openraft::errors::Fatal;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::type_config::alias::{SnapshotMetaOf, VoteOf};
use store::Error;

use super::Core;
use super::identity::Identity;
use super::lead::Lead;
use super::peer::fault::Fault;
use super::peer::serve::{Receiving, Service};
use super::peer::wire::{Answered, Denial, Facts, Hello, HelloAnswer, Question};
use super::roster;
use super::standing::Standing;
use super::types::Types;
use crate::door::host::SnapshotPieces;
use crate::state::{Incoming, Reader};

pub struct Served {
    pub core: Core,
    pub identity: Arc<Identity>,
    pub standing: Arc<Standing>,
    pub reader: Reader,
    pub lead: Arc<Lead>,
    /// Nothing waits for files or threads here.
    pub inline: bool,
}

fn stopped(fatal: &Fatal<Types>) -> Answered {
    tracing::debug!(%fatal, "a question of another member comes to a member that has ended");
    Answered::Denied(Denial::Fault(Fault::Closed))
}

impl Served {
    fn facts(&self) -> Facts {
        let server = self.standing.committed();
        Facts {
            cluster: self.identity.cluster,
            member: self.identity.member,
            members: roster::facts(server.membership()),
            since: server.log_id().map_or(0, |id| id.index),
        }
    }

    async fn heartbeat(&self, request: AppendEntriesRequest<Types>) -> Answered {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(RaftEntry::log_id).or(prev);
        match self.core.append_entries(request).await {
            Ok(response) => {
                let result = response.into_stream_result(prev, last);
                if result.is_ok() {
                    self.standing.hear();
                }
                Answered::Append(result)
            }
            Err(error) => stopped(&error.into_fatal().unwrap_or(Fatal::Stopped)),
        }
    }
}

#[async_trait]
impl Service for Served {
    fn judge(&self, hello: &Hello) -> HelloAnswer {
        let Identity { cluster, member, .. } = *self.identity;
        if hello.cluster.is_some_and(|theirs| theirs != cluster) {
            return HelloAnswer::OtherCluster { cluster };
        }
        if hello.to.is_some_and(|to| to != member) {
            return HelloAnswer::OtherMember { member };
        }
        HelloAnswer::Welcome { cluster, member }
    }

    async fn answer(&self, hello: &Hello, question: Question) -> Answered {
        match question {
            Question::Facts => return Answered::Facts(self.facts()),
            _ if hello.cluster.is_none() => return Answered::Denied(Denial::Misplaced),
            // From whoever leads, also when that one is on its way out.
            Question::Append { request, .. } => return self.heartbeat(request).await,
            Question::TransferLeader(request) => {
                return match self.core.handle_transfer_leader(request).await {
                    Ok(response) => Answered::TransferLeader(response),
                    Err(fatal) => stopped(&fatal),
                };
            }
            _ => {}
        }
        if let Some(since) = hello.from.and_then(|from| self.standing.expelled(from)) {
            return Answered::Denied(Denial::NotMember { since });
        }
        match question {
            Question::Vote(request) => match self.core.vote(request).await {
                Ok(response) => Answered::Vote(response),
                Err(error) => stopped(&error.into_fatal().unwrap_or(Fatal::Stopped)),
            },
            Question::PreVote(request) => match self.core.pre_vote(request).await {
                Ok(response) => Answered::Vote(response),
                Err(error) => stopped(&error.into_fatal().unwrap_or(Fatal::Stopped)),
            },
            question => self.lead.answer(question).await,
        }
    }

    fn session(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<Types>>,
    ) -> BoxStream<'static, StreamAppendResult<Types>> {
        let standing = self.standing.clone();
        let results = self.core.stream_append(requests);
        let results = results.scan((), move |(), result| {
            if matches!(result, Ok(Ok(_))) {
                standing.hear();
            }
            std::future::ready(result.ok())
        });
        results.boxed()
    }

    fn copy(&self) -> Result<SnapshotPieces, Denial> {
        Ok(self.reader.export())
    }

    async fn receive(&self, vote: VoteOf<Types>, meta: SnapshotMetaOf<Types>) -> Result<Box<dyn Receiving>, Denial> {
        let incoming = self.reader.receive().map_err(|error| Denial::Fault(error.into()))?;
        tracing::info!(upto = ?meta.last_log_id, "a snapshot comes in");
        let (core, standing, inline) = (self.core.clone(), self.standing.clone(), self.inline);
        Ok(Box::new(Install { core, standing, vote, meta, incoming: Some(incoming), inline }))
    }
}

/// A snapshot that comes in.
struct Install {
    core: Core,
    standing: Arc<Standing>,
    vote: VoteOf<Types>,
    meta: SnapshotMetaOf<Types>,
    /// `None` after it failed.
    incoming: Option<Incoming>,
    inline: bool,
}

impl Install {
    /// On a thread that may wait for the disk.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Incoming) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let incoming = self.incoming.take().ok_or(Error::Closed)?;
        if self.inline {
            return work(incoming);
        }
        let worked = tokio::task::spawn_blocking(move || work(incoming)).await;
        worked.unwrap_or_else(|error| Err(Error::storage("take in a snapshot", error)))
    }
}

#[async_trait]
impl Receiving for Install {
    async fn piece(&mut self, piece: Bytes) -> Result<(), Denial> {
        let written = self.work(move |mut incoming| {
            incoming.write(piece)?;
            Ok(incoming)
        });
        self.incoming = Some(written.await.map_err(|error| Denial::Fault(error.into()))?);
        self.standing.hear();
        Ok(())
    }

    async fn end(mut self: Box<Self>) -> Answered {
        let snapshot = match self.work(Incoming::finish).await {
            Ok(snapshot) => snapshot,
            Err(error) => return Answered::Denied(Denial::Fault(error.into())),
        };
        let snapshot = Snapshot { meta: self.meta, snapshot };
        match self.core.install_full_snapshot(self.vote, snapshot).await {
            Ok(response) => Answered::SnapshotInstalled(response),
            Err(fatal) => stopped(&fatal),
        }
    }
}
