//! Requests become entries of the log: those that wait go together, while a few entries are under way. A request waits
//! for the tasks that are ready by then: the more of them ask for something too, the more go together.
//!
//! ```text
//!   submit ──▶ queue ──▶ Here:  one Proposal ──▶ Raft ──▶ applied ──▶ answers       (no task in between)
//!                   └──▶ There: one Proposal ──▶ the leader's queue ──▶ answers, once it is applied here too
//!                   └──▶ Nobody: waits a little, then NoLeader
//! ```
//!
//! What has surely not happened is tried again for a while, with whoever leads then. What may have happened never is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use store::{Error, admit};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::Core;
use super::peer::link::Undone;
use super::peer::wire::{Answered, Denial, Lane, Question};
use super::peers::Peers;
use super::room::Room;
use super::standing::{Route, Standing};
use super::types::{MemberId, Reply, Types};
use crate::command::{Answer, Proposal, Refusal, Request};
use crate::state::Reader;

/// Requests of one proposal.
const BATCH_REQUESTS_MAX: usize = 1024;

/// Bytes of keys and values of one proposal, but one request at least.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Proposals under way at once. With one, the disk rests while answers are given; with many, few requests share a sync.
const UNDER_WAY_MAX: usize = 3;

/// Requests that wait.
const QUEUE_REQUESTS_MAX: usize = 32 * 1024;

/// Bytes of keys and values that wait.
const QUEUE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Of a request besides its keys and values.
const REQUEST_BYTES: usize = 64;

/// Between two attempts while there is no leader to be found.
const RETRY: Duration = Duration::from_millis(20);

pub struct Proposer {
    core: Core,
    standing: Arc<Standing>,
    peers: Arc<Peers>,
    reader: Reader,
    room: Arc<Room>,
    limit: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    under_way: usize,
    /// A task is about to send what waits.
    gathering: bool,
    /// There will be another attempt; until then nothing is sent.
    retrying: bool,
    closed: bool,
}

struct Waiting {
    request: Request,
    ticket: Ticket,
}

/// A request without what it asks.
struct Ticket {
    bytes: usize,
    since: Instant,
    /// It was passed on by another member, and is not passed on again.
    guest: bool,
    done: oneshot::Sender<Done>,
}

struct Done {
    result: Result<Answer, Refusal>,
    /// Of the entry of the log, 0 when there is none.
    index: u64,
}

impl Ticket {
    fn settle(self, result: Result<Answer, Refusal>, index: u64) {
        // Whoever asked may have gone.
        let _ = self.done.send(Done { result, index });
    }

    fn refuse(self, error: Error) {
        self.settle(Err(Refusal::Store(error)), 0);
    }
}

fn refuse_all(tickets: Vec<Ticket>, error: &Error) {
    for ticket in tickets {
        ticket.refuse(error.clone());
    }
}

fn bytes_of(request: &Request) -> usize {
    let bytes = match request {
        Request::Txn { txn, .. } => admit::bytes(txn),
        Request::System { rows, .. } => {
            rows.iter().map(|(key, row)| key.len() + row.as_ref().map_or(0, Bytes::len)).sum()
        }
        Request::Grant { .. } | Request::Revoke(_) | Request::Compact(_) => 0,
    };
    bytes + REQUEST_BYTES
}

impl Proposer {
    pub fn new(
        core: Core,
        standing: Arc<Standing>,
        peers: Arc<Peers>,
        reader: Reader,
        room: Arc<Room>,
        limit: Duration,
    ) -> Arc<Self> {
        Arc::new(Self { core, standing, peers, reader, room, limit, queue: Mutex::default() })
    }

    /// The request is admitted. Answers once it is applied here.
    ///
    /// Refused with [`Error::NoLeader`] and [`Error::Overloaded`] when it has surely not happened; after
    /// [`Error::TimedOut`] and [`Error::Closed`] it may have.
    pub async fn submit(self: &Arc<Self>, request: Request) -> Result<Answer, Refusal> {
        let done = self.enqueue(vec![request], false)?.pop().expect("one request has one answer");
        match timeout(self.limit, done).await {
            Ok(Ok(done)) => done.result,
            Ok(Err(_)) => Err(Refusal::Store(Error::Closed)),
            Err(_) => Err(Refusal::Store(Error::TimedOut)),
        }
    }

    /// For another member. Answers with the results in order and the entry of the log that holds the last of them.
    pub async fn submit_for_peer(self: &Arc<Self>, proposal: Proposal) -> Answered {
        if self.standing.route() != Route::Here {
            return Answered::Denied(Denial::NotLeader);
        }
        let requests = Arc::try_unwrap(proposal.requests).unwrap_or_else(|shared| (*shared).clone());
        let waiting = match self.enqueue(requests, true) {
            Ok(waiting) => waiting,
            Err(Refusal::Store(Error::Overloaded)) => return Answered::Denied(Denial::Busy),
            Err(_) => return Answered::Denied(Denial::NotLeader),
        };
        let deadline = Instant::now() + self.limit;
        let (mut index, mut answers) = (0, Vec::with_capacity(waiting.len()));
        for done in waiting {
            let done = match timeout_at(deadline, done).await {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Done { result: Err(Refusal::Store(Error::Closed)), index: 0 },
                Err(_) => Done { result: Err(Refusal::Store(Error::TimedOut)), index: 0 },
            };
            index = index.max(done.index);
            answers.push(done.result.map_err(Into::into));
        }
        Answered::Proposed { index, answers }
    }

    fn enqueue(self: &Arc<Self>, requests: Vec<Request>, guest: bool) -> Result<Vec<oneshot::Receiver<Done>>, Refusal> {
        if self.standing.is_forsaken() {
            return Err(Refusal::Store(Error::NoLeader));
        }
        let mut receivers = Vec::with_capacity(requests.len());
        {
            let queue = &mut *self.queue.lock();
            if queue.closed {
                return Err(Refusal::Store(Error::Closed));
            }
            if queue.waiting.len() + requests.len() > QUEUE_REQUESTS_MAX || queue.bytes > QUEUE_BYTES_MAX {
                return Err(Refusal::Store(Error::Overloaded));
            }
            let since = Instant::now();
            for request in requests {
                let (done, receiver) = oneshot::channel();
                receivers.push(receiver);
                let bytes = bytes_of(&request);
                let ticket = Ticket { bytes, since, guest, done };
                if let Err(error) = self.room.admits(&request) {
                    ticket.refuse(error);
                    continue;
                }
                queue.bytes += bytes;
                queue.waiting.push_back(Waiting { request, ticket });
            }
        }
        self.gather();
        Ok(receivers)
    }

    /// Sends what waits, one turn of the scheduler later.
    fn gather(self: &Arc<Self>) {
        if std::mem::replace(&mut self.queue.lock().gathering, true) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            this.queue.lock().gathering = false;
            this.pump();
        });
    }

    /// The leader is another one now, or one at last.
    pub fn wake(self: &Arc<Self>) {
        self.queue.lock().retrying = false;
        self.pump();
    }

    /// Nothing is taken any more, and what waits is refused.
    pub fn close(&self) {
        let waiting = {
            let queue = &mut *self.queue.lock();
            queue.closed = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        for Waiting { ticket, .. } in waiting {
            ticket.refuse(Error::Closed);
        }
    }

    /// Sends what waits, as far as there is somebody to send it to and not too much is under way.
    fn pump(self: &Arc<Self>) {
        loop {
            let (route, requests, tickets) = {
                let queue = &mut *self.queue.lock();
                if queue.retrying || queue.under_way >= UNDER_WAY_MAX || queue.waiting.is_empty() {
                    return;
                }
                let route = self.standing.route();
                if route == Route::Nobody {
                    self.refuse_old(queue);
                    self.retry_later(queue);
                    return;
                }
                let (requests, tickets) = queue.take(route);
                if tickets.is_empty() {
                    continue;
                }
                queue.under_way += 1;
                (route, requests, tickets)
            };
            match route {
                Route::There(leader) => self.pass_on(leader, requests, tickets),
                Route::Here | Route::Nobody => self.propose(requests, tickets),
            }
        }
    }

    fn propose(self: &Arc<Self>, requests: Vec<Request>, tickets: Vec<Ticket>) {
        let requests = Arc::new(requests);
        let proposal = Proposal { requests: requests.clone() };
        let this = self.clone();
        let reply = Reply::new(move |result| this.proposed(result, requests, tickets));
        let core = self.core.clone();
        let mut sending = Box::pin(async move { core.client_write_ff(proposal, Some(reply)).await });
        // There is room in Raft's own queue nearly always; whether it took it or not, the reply comes.
        if sending.as_mut().now_or_never().is_none() {
            tokio::spawn(sending);
        }
    }

    fn proposed(
        self: &Arc<Self>,
        result: Option<ClientWriteResult<Types>>,
        requests: Arc<Vec<Request>>,
        tickets: Vec<Ticket>,
    ) {
        match result {
            Some(Ok(response)) => {
                let mut answers = response.data.answers.into_iter();
                for ticket in tickets {
                    let answer = answers.next().unwrap_or(Err(Refusal::Store(Error::TimedOut)));
                    ticket.settle(answer, response.log_id.index);
                }
            }
            // Turned down before it got into the log.
            Some(Err(ClientWriteError::ForwardToLeader(_))) => {
                self.again(Arc::unwrap_or_clone(requests), tickets);
            }
            // In the log of this member, and thrown out of it by another leader: some other member may still have it.
            Some(Err(_)) => refuse_all(tickets, &Error::TimedOut),
            None => refuse_all(tickets, &Error::Closed),
        }
        self.release();
    }

    fn pass_on(self: &Arc<Self>, leader: MemberId, requests: Vec<Request>, tickets: Vec<Ticket>) {
        let this = self.clone();
        tokio::spawn(async move {
            let requests = Arc::new(requests);
            let question = Question::Propose(Proposal { requests: requests.clone() });
            let answered = this.peers.link(leader, Lane::Talk).call(question, this.limit).await;
            match answered {
                Ok(Answered::Proposed { index, answers }) => {
                    this.release();
                    let here = this.reader.wait_applied(index);
                    if index > 0 && timeout(this.limit, here).await.is_err() {
                        tracing::debug!(index, "what the leader has applied is not applied here in time");
                    }
                    let requests = Arc::unwrap_or_clone(requests);
                    let (mut again, mut answers) = ((Vec::new(), Vec::new()), answers.into_iter());
                    for (request, ticket) in requests.into_iter().zip(tickets) {
                        match answers.next().map(|answer| answer.map_err(Refusal::from)) {
                            Some(Err(Refusal::Store(Error::NoLeader))) => {
                                again.0.push(request);
                                again.1.push(ticket);
                            }
                            // It is the leader that ends, perhaps after it had put this into the log.
                            Some(Err(Refusal::Store(Error::Closed))) | None => ticket.refuse(Error::TimedOut),
                            Some(answer) => ticket.settle(answer, index),
                        }
                    }
                    this.again(again.0, again.1);
                    return;
                }
                Ok(Answered::Denied(Denial::NotLeader | Denial::Busy | Denial::NotMember { .. }))
                | Err(Undone::NotSent(_)) => this.again(Arc::unwrap_or_clone(requests), tickets),
                Ok(Answered::Denied(Denial::Fault(fault))) => refuse_all(tickets, &fault.into()),
                Ok(_) | Err(Undone::Lost(_) | Undone::Late) => refuse_all(tickets, &Error::TimedOut),
            }
            this.release();
        });
    }

    /// These have surely not happened.
    fn again(self: &Arc<Self>, requests: Vec<Request>, tickets: Vec<Ticket>) {
        if tickets.is_empty() {
            return;
        }
        let queue = &mut *self.queue.lock();
        for (request, ticket) in requests.into_iter().zip(tickets).rev() {
            if queue.closed {
                ticket.refuse(Error::Closed);
            } else if ticket.guest {
                ticket.refuse(Error::NoLeader);
            } else {
                queue.bytes += ticket.bytes;
                queue.waiting.push_front(Waiting { request, ticket });
            }
        }
        self.refuse_old(queue);
        self.retry_later(queue);
    }

    /// What has waited for a leader long enough; all of it, when there has been none for long.
    fn refuse_old(&self, queue: &mut Queue) {
        let (forsaken, patience) = (self.standing.is_forsaken(), self.standing.patience());
        let old = |waiting: &Waiting| forsaken || waiting.ticket.since.elapsed() > patience;
        while let Some(waiting) = queue.waiting.pop_front_if(|waiting| old(waiting)) {
            queue.bytes -= waiting.ticket.bytes;
            waiting.ticket.refuse(Error::NoLeader);
        }
    }

    fn retry_later(self: &Arc<Self>, queue: &mut Queue) {
        if queue.waiting.is_empty() || std::mem::replace(&mut queue.retrying, true) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            this.wake();
        });
    }

    fn release(self: &Arc<Self>) {
        self.queue.lock().under_way -= 1;
        self.pump();
    }
}

impl Queue {
    fn take(&mut self, route: Route) -> (Vec<Request>, Vec<Ticket>) {
        let (mut requests, mut tickets, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(Waiting { ticket, .. }) = self.waiting.front()
            && tickets.len() < BATCH_REQUESTS_MAX
            && (tickets.is_empty() || bytes + ticket.bytes <= BATCH_BYTES_MAX)
        {
            let Some(Waiting { request, ticket }) = self.waiting.pop_front() else { break };
            self.bytes -= ticket.bytes;
            if ticket.done.is_closed() {
                // Nobody waits for it any more, and it was not sent to anybody.
            } else if ticket.guest && route != Route::Here {
                ticket.refuse(Error::NoLeader);
            } else {
                bytes += ticket.bytes;
                requests.push(request);
                tickets.push(ticket);
            }
        }
        (requests, tickets)
    }
}
