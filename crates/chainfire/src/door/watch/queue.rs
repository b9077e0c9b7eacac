//! What waits to be sent on one stream. It is bounded for events, which come without being asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use store::Revision;
use tokio::sync::Notify;
use tonic::Status;

use super::chunk::{Chunk, Recipient};

/// Names a watch for as long as its stream lives. Clients choose ids anew; these are never used twice.
pub type Serial = u64;

/// Bytes of events that may wait. Watches that share a chunk share its bytes.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answers that may wait.
const ANSWERS_MAX: usize = 32 * 1024;

pub enum Out {
    /// Framed already.
    Frame(Bytes),
    Events {
        chunk: Arc<Chunk>,
        to: Recipient,
    },
    /// The watch did not keep up and is out of its group: it goes on from a revision on its own.
    Behind {
        serial: Serial,
        resume: Revision,
    },
    /// Everything up to the revision has been put in the queue: the answer to [`super::group::Ask`].
    Progress {
        ticket: u64,
        revision: Revision,
    },
    /// The history that the watch needs is gone.
    Compacted {
        serial: Serial,
        compacted: Revision,
    },
    /// Nothing more will come.
    End(Status),
}

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Default)]
struct Waiting {
    outs: VecDeque<Out>,
    answers: usize,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, out: Out) {
        if let Out::Events { chunk, to } = &out {
            self.answers += 1;
            self.bytes += Self::weight(chunk, self.outs.back(), to);
        }
        self.outs.push_back(out);
    }

    /// What an entry adds: a chunk that stands in the queue several times in a row counts once.
    fn weight(chunk: &Arc<Chunk>, neighbour: Option<&Out>, to: &Recipient) -> usize {
        match neighbour {
            Some(Out::Events { chunk: other, to: same }) if Arc::ptr_eq(chunk, other) && same.taste == to.taste => 0,
            _ => chunk.encoded(to.taste).len(),
        }
    }
}

impl Queue {
    /// A word about a watch or the stream itself, or what a watch took on its own; always finds room, since there is
    /// little of it for each watch.
    pub fn say(&self, out: Out) {
        self.waiting.lock().push(out);
        self.ready.notify_one();
    }

    /// Events for several watches of this stream; answers for how many of them there was room. The others are told that
    /// they are behind.
    pub fn offer(&self, chunk: &Arc<Chunk>, recipients: &[Recipient]) -> usize {
        let waiting = &mut *self.waiting.lock();
        let mut taken = recipients.len();
        for (at, to) in recipients.iter().enumerate() {
            if taken <= at || waiting.answers >= ANSWERS_MAX || waiting.bytes >= BYTES_MAX {
                taken = taken.min(at);
                let resume = chunk.first.max(to.from);
                waiting.outs.push_back(Out::Behind { serial: to.serial, resume });
                continue;
            }
            if to.from > chunk.last {
                continue;
            }
            waiting.push(Out::Events { chunk: chunk.clone(), to: *to });
        }
        self.ready.notify_one();
        taken
    }

    pub fn take(&self) -> Option<Out> {
        let waiting = &mut *self.waiting.lock();
        let out = waiting.outs.pop_front()?;
        if let Out::Events { chunk, to } = &out {
            waiting.answers -= 1;
            // A chunk's bytes are let go with its last entry in a row.
            waiting.bytes -= Waiting::weight(chunk, waiting.outs.front(), to);
        }
        Some(out)
    }

    /// Waits for something to be there; may wake once too often.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use store::{Batch, EventKind, KeyValue, WatchEvent};

    use super::*;

    fn chunk(revision: u64, bytes: usize) -> Arc<Chunk> {
        let kv = KeyValue { key: "k".into(), value: vec![0; bytes].into(), ..KeyValue::default() };
        let event = WatchEvent { kind: EventKind::Put, kv, previous: None };
        Arc::new(Chunk::new(vec![Batch { revision: Revision(revision), events: vec![event] }]).unwrap())
    }

    fn recipient(id: i64) -> Recipient {
        Recipient { id, serial: id as u64, from: Revision(2), ..Recipient::default() }
    }

    #[test]
    fn a_queue_that_is_full_takes_no_events_and_says_where_to_go_on() {
        let queue = Queue::default();
        let to = [recipient(9)];
        let large = 1024 * 1024;
        for revision in 2..6 {
            assert_eq!(queue.offer(&chunk(revision, large), &to), 1);
        }
        assert_eq!(queue.offer(&chunk(6, large), &to), 0);
        for _ in 2..6 {
            assert!(matches!(queue.take(), Some(Out::Events { .. })));
        }
        assert!(matches!(queue.take(), Some(Out::Behind { serial: 9, resume: Revision(6) })));
        assert!(queue.take().is_none());
        assert_eq!(queue.offer(&chunk(7, large), &to), 1, "there is room again");
    }

    #[test]
    fn watches_that_share_events_share_their_room() {
        let queue = Queue::default();
        let recipients: Vec<_> = (0..1000).map(recipient).collect();
        for revision in 2..5 {
            assert_eq!(queue.offer(&chunk(revision, 1024 * 1024), &recipients), 1000);
        }
        assert_eq!(queue.waiting.lock().answers, 3000);
        while queue.take().is_some() {}
        assert_eq!(queue.waiting.lock().bytes, 0);
    }

    #[test]
    fn what_lies_before_a_watch_begins_is_not_for_it() {
        let queue = Queue::default();
        assert_eq!(queue.offer(&chunk(5, 1), &[Recipient { from: Revision(6), ..recipient(1) }]), 1);
        assert!(queue.take().is_none());
    }
}
