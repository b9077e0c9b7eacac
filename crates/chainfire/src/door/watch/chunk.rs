//! Some revisions as events of the protocol, encoded once for all who watch them.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use etcd::proto::etcdserverpb::{ResponseHeader, WatchResponse};
use etcd::proto::mvccpb::{Event, event::EventType};
use prost::Message;
use store::{Batch, EventKind, Revision};

use super::queue::Serial;
use crate::door::grpc::frame::{self, MESSAGE_BYTES_MAX};
use crate::door::kv::answer::key_value;

/// What of the events a watch wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taste {
    pub previous: bool,
    pub no_put: bool,
    pub no_delete: bool,
}

impl Taste {
    const KINDS: usize = 8;

    fn index(self) -> usize {
        usize::from(self.previous) | usize::from(self.no_put) << 1 | usize::from(self.no_delete) << 2
    }

    fn wants(self, event: &Event) -> bool {
        let put = event.r#type == i32::from(EventType::Put);
        if put { !self.no_put } else { !self.no_delete }
    }
}

/// Never empty; revisions ascend.
pub struct Chunk {
    pub first: Revision,
    pub last: Revision,
    events: Vec<Event>,
    encoded: [OnceLock<Bytes>; Taste::KINDS],
}

fn event(event: store::WatchEvent) -> Event {
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    Event { r#type: kind.into(), kv: Some(key_value(event.kv)), prev_kv: event.previous.map(key_value) }
}

/// As the field `events` of an answer.
fn encode(event: &Event, previous: bool, out: &mut BytesMut) {
    const EVENTS: u32 = 11;
    if previous || event.prev_kv.is_none() {
        prost::encoding::message::encode(EVENTS, event, out);
    } else {
        let without = Event { prev_kv: None, ..event.clone() };
        prost::encoding::message::encode(EVENTS, &without, out);
    }
}

impl Chunk {
    /// `None` for no batches.
    pub fn new(batches: Vec<Batch>) -> Option<Self> {
        let (first, last) = (batches.first()?.revision, batches.last()?.revision);
        let events = batches.into_iter().flat_map(|batch| batch.events).map(event).collect();
        Some(Self { first, last, events, encoded: Default::default() })
    }

    /// The events that `taste` wants; empty when there are none.
    pub fn encoded(&self, taste: Taste) -> &Bytes {
        self.encoded[taste.index()].get_or_init(|| {
            let mut out = BytesMut::new();
            for event in self.events.iter().filter(|event| taste.wants(event)) {
                encode(event, taste.previous, &mut out);
            }
            out.freeze()
        })
    }

    /// Appends the answer for a watch that wants what happened from `from` on, unless that is nothing; more answers
    /// than one when it is large and may be cut up. Says whether there was something.
    pub fn answer(&self, to: &Recipient, header: ResponseHeader, out: &mut BytesMut) -> bool {
        let before = out.len();
        self.write(to, header, out);
        out.len() > before
    }

    fn write(&self, to: &Recipient, header: ResponseHeader, out: &mut BytesMut) {
        let head = WatchResponse { header: Some(header), watch_id: to.id, ..WatchResponse::default() };
        if to.from <= self.first && (!to.taste.previous || to.whole_from <= self.first) {
            let events = self.encoded(to.taste);
            if events.is_empty() {
                return;
            }
            if !to.fragment || events.len() + head.encoded_len() < MESSAGE_BYTES_MAX {
                write(&head, events, out);
                return;
            }
        }
        self.pieces(to, head, out);
    }

    /// Event by event: for the rare answer that is not the same for everybody.
    fn pieces(&self, to: &Recipient, mut head: WatchResponse, out: &mut BytesMut) {
        let room = MESSAGE_BYTES_MAX - head.encoded_len() - 2;
        let mut events = BytesMut::new();
        let wanted = self.events.iter().filter(|event| to.taste.wants(event) && revision(event) >= to.from.0 as i64);
        for event in wanted {
            let before = events.len();
            let previous = to.taste.previous && revision(event) >= to.whole_from.0 as i64;
            encode(event, previous, &mut events);
            if to.fragment && before > 0 && events.len() > room {
                let rest = events.split_off(before);
                head.fragment = true;
                write(&head, &events, out);
                events = rest;
            }
        }
        if !events.is_empty() {
            head.fragment = false;
            write(&head, &events, out);
        }
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Fields may come in any pieces, so an answer is its head and then the events that others get too.
fn write(head: &WatchResponse, events: &[u8], out: &mut BytesMut) {
    let bytes = head.encoded_len() + events.len();
    out.reserve(frame::PREFIX_BYTES + bytes);
    out.put_u8(0);
    out.put_u32(bytes as u32);
    head.encode_raw(out);
    out.extend_from_slice(events);
}

/// A watch, as far as its answers need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recipient {
    pub serial: Serial,
    /// What the client calls it.
    pub id: i64,
    /// Wants to hear of progress when there is nothing else to hear.
    pub notify: bool,
    pub taste: Taste,
    /// Large answers may be cut up.
    pub fragment: bool,
    /// Nothing before it is for this watch.
    pub from: Revision,
    /// What keys had before their changes is told from here on: up to here it was compacted when the watch began.
    pub whole_from: Revision,
}

#[cfg(test)]
mod tests {
    use store::{KeyValue, WatchEvent};

    use super::*;

    fn batch(revision: u64, events: &[(EventKind, &'static str, usize)]) -> Batch {
        let kv = |key: &'static str, bytes| KeyValue {
            key: Bytes::from(key),
            value: Bytes::from(vec![7; bytes]),
            mod_revision: Revision(revision),
            ..KeyValue::default()
        };
        let event = |(kind, key, bytes): &(EventKind, &'static str, usize)| WatchEvent {
            kind: *kind,
            kv: kv(key, *bytes),
            previous: Some(kv(key, 1)),
        };
        Batch { revision: Revision(revision), events: events.iter().map(event).collect() }
    }

    fn answers(chunk: &Chunk, to: Recipient) -> Vec<WatchResponse> {
        let mut out = BytesMut::new();
        chunk.answer(&to, ResponseHeader::default(), &mut out);
        let mut answers = Vec::new();
        while !out.is_empty() {
            let prefix = out.split_to(frame::PREFIX_BYTES);
            let bytes = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            answers.push(WatchResponse::decode(out.split_to(bytes)).unwrap());
        }
        answers
    }

    fn keys(answers: &[WatchResponse]) -> Vec<String> {
        let events = answers.iter().flat_map(|answer| &answer.events);
        events.map(|event| String::from_utf8(event.kv.as_ref().unwrap().key.to_vec()).unwrap()).collect()
    }

    const ALL: Recipient = Recipient {
        serial: 0,
        id: 3,
        notify: false,
        taste: Taste { previous: false, no_put: false, no_delete: false },
        fragment: false,
        from: Revision::ZERO,
        whole_from: Revision::ZERO,
    };

    #[test]
    fn a_watch_gets_what_it_wants_and_only_that() {
        let chunk = Chunk::new(vec![
            batch(5, &[(EventKind::Put, "a", 1), (EventKind::Delete, "b", 0)]),
            batch(6, &[(EventKind::Put, "c", 1)]),
        ])
        .unwrap();
        let got = answers(&chunk, ALL);
        assert_eq!((keys(&got), got[0].watch_id), (vec!["a".into(), "b".into(), "c".into()], 3));
        assert!(got[0].events.iter().all(|event| event.prev_kv.is_none()));
        let taste = |taste| answers(&chunk, Recipient { taste, ..ALL });
        let previous = taste(Taste { previous: true, ..Taste::default() });
        assert!(previous[0].events.iter().all(|event| event.prev_kv.is_some()));
        let whole_from =
            Recipient { taste: Taste { previous: true, ..Taste::default() }, whole_from: Revision(6), ..ALL };
        let previous: Vec<bool> =
            answers(&chunk, whole_from)[0].events.iter().map(|event| event.prev_kv.is_some()).collect();
        assert_eq!(previous, [false, false, true], "what was before revision 5 is compacted");
        assert_eq!(keys(&taste(Taste { no_put: true, ..Taste::default() })), ["b"]);
        assert_eq!(keys(&taste(Taste { no_delete: true, ..Taste::default() })), ["a", "c"]);
        assert!(taste(Taste { no_put: true, no_delete: true, previous: false }).is_empty());
        assert_eq!(keys(&answers(&chunk, Recipient { from: Revision(6), ..ALL })), ["c"], "it came in between");
        assert!(answers(&chunk, Recipient { from: Revision(7), ..ALL }).is_empty());
    }

    #[test]
    fn large_answers_are_cut_up_for_those_who_can_put_them_together() {
        const MIB: usize = 1024 * 1024;
        let events = [(EventKind::Put, "a", MIB), (EventKind::Put, "b", MIB), (EventKind::Put, "c", 3 * MIB)];
        let chunk = Chunk::new(vec![batch(5, &events)]).unwrap();
        assert_eq!(answers(&chunk, ALL).len(), 1);
        let pieces = answers(&chunk, Recipient { fragment: true, ..ALL });
        assert_eq!(pieces.iter().map(|piece| piece.fragment).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(keys(&pieces), ["a", "b", "c"]);
    }
}
