//! Raft's own messages to other members.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesOrdered, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{OptionalSend, RPCTypes};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::peer::link::{Link, Undone};
use super::peer::wire::{Answered, Denial, Lane, Question};
use super::peers::Peers;
use super::types::{MemberId, Seat, Types};
use crate::state::Dump;

/// Appends to one member that are on their way at once.
const APPENDS_MAX: usize = 32;

/// Pieces of a snapshot, up to 1 MiB each, that are on their way at once.
const PIECES_MAX: usize = 4;

/// For one piece to be written to disk there.
const PIECE_LIMIT: Duration = Duration::from_secs(30);

/// For a whole snapshot to be put in place there.
const INSTALL_LIMIT: Duration = Duration::from_mins(10);

#[derive(Clone)]
pub struct Network(pub Arc<Peers>);

/// The way to one member, for one purpose.
pub struct Remote {
    peers: Arc<Peers>,
    to: MemberId,
    heartbeat: bool,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Remote;

    async fn new_client(&mut self, target: MemberId, seat: &Seat) -> Remote {
        self.remote(target, seat, false)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, seat: &Seat) -> Remote {
        self.remote(target, seat, true)
    }
}

impl Network {
    fn remote(&self, to: MemberId, seat: &Seat, heartbeat: bool) -> Remote {
        if self.0.book.addresses(to).is_empty() {
            self.0.book.write(to, &seat.contact);
        }
        Remote { peers: self.0.clone(), to, heartbeat }
    }
}

impl Remote {
    async fn call(&self, question: Question, limit: Duration, what: RPCTypes) -> Result<Answered, RPCError<Types>> {
        let answered = self.peers.link(self.to, Lane::Talk).call(question, limit).await;
        if let Ok(Answered::Denied(Denial::NotMember { since })) = &answered {
            self.peers.expel(*since);
        }
        answered.map_err(|undone| self.fault(undone, limit, what))
    }

    fn fault(&self, undone: Undone, timeout: Duration, action: RPCTypes) -> RPCError<Types> {
        fault(undone, Timeout { action, id: self.peers.me, target: self.to, timeout })
    }
}

fn fault(undone: Undone, late: Timeout<Types>) -> RPCError<Types> {
    match undone {
        Undone::NotSent(_) => RPCError::Unreachable(Unreachable::from_string(undone)),
        Undone::Lost(_) => RPCError::Network(NetworkError::from_string(undone)),
        Undone::Late => RPCError::Timeout(late),
    }
}

fn unexpected(answered: &Answered) -> RPCError<Types> {
    // Asked again at once, it would answer the same.
    RPCError::Unreachable(Unreachable::from_string(format!("it answered {answered:?}")))
}

type Waiting = Pin<Box<dyn Future<Output = Result<Answered, Undone>> + Send>>;

/// Requests that come in and answers that go out, in the same order.
struct Session<S> {
    link: Arc<Link>,
    number: u64,
    requests: S,
    over: bool,
    waiting: FuturesOrdered<Waiting>,
}

fn answer_of(answer: oneshot::Receiver<Result<Answered, Undone>>) -> Waiting {
    Box::pin(async move { answer.await.unwrap_or_else(|_| Err(Undone::Lost("the link was given up".to_owned()))) })
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Session<S> {
    async fn next(&mut self) -> Option<Result<Answered, Undone>> {
        loop {
            tokio::select! {
                biased;
                Some(answer) = self.waiting.next(), if !self.waiting.is_empty() => return Some(answer),
                request = self.requests.next(), if !self.over && self.waiting.len() < APPENDS_MAX => match request {
                    None => self.over = true,
                    Some(request) => {
                        let question = Question::Append { session: self.number, request };
                        let answer = self.link.send(question).await;
                        self.waiting.push_back(answer_of(answer));
                    }
                },
                else => return None,
            }
        }
    }
}

impl RaftNetworkV2<Types> for Remote {
    type SnapshotData = Dump;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let question = Question::Append { session: 0, request: rpc };
        match self.call(question, option.soft_ttl(), RPCTypes::AppendEntries).await? {
            Answered::Append(result) => Ok(result.into()),
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let (number, lane) = if self.heartbeat { (0, Lane::Talk) } else { (self.peers.next_session(), Lane::Log) };
        let session = Session {
            link: self.peers.link(self.to, lane),
            number,
            requests: input,
            over: false,
            waiting: FuturesOrdered::new(),
        };
        let late =
            Timeout { action: RPCTypes::AppendEntries, id: self.peers.me, target: self.to, timeout: option.hard_ttl() };
        let answers = futures::stream::unfold(Some(session), move |session| {
            let late = late.clone();
            async move {
                let mut session = session?;
                let answer = match session.next().await? {
                    Ok(Answered::Append(result)) => Ok(result),
                    Ok(other) => Err(unexpected(&other)),
                    Err(undone) => Err(fault(undone, late)),
                };
                let goes_on = matches!(answer, Ok(Ok(_)));
                Some((answer, goes_on.then_some(session)))
            }
        });
        let answers: BoxStream<'s, _> = answers.boxed();
        Box::pin(async move { Ok(answers) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Question::Vote(rpc), option.soft_ttl(), RPCTypes::Vote).await? {
            Answered::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Question::PreVote(rpc), option.soft_ttl(), RPCTypes::Vote).await? {
            Answered::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Question::TransferLeader(req), option.soft_ttl(), RPCTypes::TransferLeader).await? {
            Answered::TransferLeader(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Dump>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            reason = cancel => Err(StreamingError::Closed(reason)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }
}

impl Remote {
    async fn send_snapshot(
        &self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Dump>,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let link = self.peers.link(self.to, Lane::Bulk);
        let begin = Question::SnapshotBegin { vote, meta: snapshot.meta.clone() };
        self.taken(link.call(begin, PIECE_LIMIT).await)?;
        let mut pieces = snapshot.snapshot.pieces();
        let mut waiting = VecDeque::new();
        while let Some(piece) = pieces.recv().await {
            // Reading the own state failed; another attempt may not.
            let piece = piece.map_err(|error| StreamingError::Unreachable(Unreachable::from_string(error)))?;
            waiting.push_back(link.send(Question::SnapshotPiece(piece)).await);
            if waiting.len() >= PIECES_MAX
                && let Some(oldest) = waiting.pop_front()
            {
                self.taken(timeout(PIECE_LIMIT, answer_of(oldest)).await.unwrap_or(Err(Undone::Late)))?;
            }
        }
        for oldest in waiting {
            self.taken(timeout(PIECE_LIMIT, answer_of(oldest)).await.unwrap_or(Err(Undone::Late)))?;
        }
        match link.call(Question::SnapshotEnd, INSTALL_LIMIT).await {
            Ok(Answered::SnapshotInstalled(response)) => Ok(response),
            Ok(other) => Err(unexpected(&other).into()),
            Err(undone) => Err(self.fault(undone, INSTALL_LIMIT, RPCTypes::InstallSnapshot).into()),
        }
    }

    fn taken(&self, answered: Result<Answered, Undone>) -> Result<(), StreamingError<Types>> {
        match answered {
            Ok(Answered::SnapshotTaken) => Ok(()),
            Ok(Answered::Denied(Denial::Fault(fault))) => {
                let error = store::Error::from(fault);
                Err(StreamingError::Unreachable(Unreachable::from_string(format!("it refuses a snapshot: {error}"))))
            }
            Ok(other) => Err(unexpected(&other).into()),
            Err(undone) => Err(self.fault(undone, PIECE_LIMIT, RPCTypes::InstallSnapshot).into()),
        }
    }
}
