//! A watch's responses as whole revisions.

use store::{Batch, EventKind, KeyValue, WatchEvent};

use super::answer::{key_value, revision};
use crate::proto::mvccpb;
use crate::proto::mvccpb::event::EventType;

/// Puts fragments together. A response holds whole revisions, in order; its fragments may end anywhere, so of what came
/// with more to follow, the last revision is held back. etcd guarantees the rest ("Watch: atomic, ordered", etcd
/// documentation, learning/api_guarantees).
#[derive(Default)]
pub(crate) struct Whole {
    held: Vec<WatchEvent>,
}

impl Whole {
    /// Revisions that are complete now. `fragment`: more of the same response follows.
    pub fn take(&mut self, events: Vec<mvccpb::Event>, fragment: bool) -> Vec<Batch> {
        self.held.extend(events.into_iter().filter_map(event));
        let mut batches: Vec<Batch> = Vec::new();
        for event in self.held.drain(..) {
            match batches.last_mut() {
                Some(batch) if batch.revision == event.kv.mod_revision => batch.events.push(event),
                _ => batches.push(Batch { revision: event.kv.mod_revision, events: vec![event] }),
            }
        }
        if fragment && let Some(last) = batches.pop() {
            self.held = last.events;
        }
        batches
    }
}

/// `None`: there is nothing in it.
fn event(event: mvccpb::Event) -> Option<WatchEvent> {
    let kind = event.r#type();
    let kv = event.kv?;
    let (kind, kv) = match kind {
        EventType::Put => (EventKind::Put, key_value(kv)),
        EventType::Delete => {
            let mod_revision = revision(kv.mod_revision);
            (EventKind::Delete, KeyValue { key: kv.key, mod_revision, ..KeyValue::default() })
        }
    };
    Some(WatchEvent { kind, kv, previous: event.prev_kv.map(key_value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(revisions: &[i64]) -> Vec<mvccpb::Event> {
        let kv = |mod_revision: &i64| mvccpb::KeyValue { mod_revision: *mod_revision, ..mvccpb::KeyValue::default() };
        revisions.iter().map(|revision| mvccpb::Event { kv: Some(kv(revision)), ..mvccpb::Event::default() }).collect()
    }

    fn shown(batches: Vec<Batch>) -> Vec<(u64, usize)> {
        batches.into_iter().map(|batch| (batch.revision.0, batch.events.len())).collect()
    }

    #[test]
    fn a_revision_over_fragments_comes_once_and_whole() {
        let mut whole = Whole::default();
        assert_eq!(shown(whole.take(events(&[2, 3, 3]), false)), [(2, 1), (3, 2)]);
        assert_eq!(shown(whole.take(events(&[4, 5, 5]), true)), [(4, 1)]);
        assert_eq!(shown(whole.take(events(&[5, 5]), true)), []);
        assert_eq!(shown(whole.take(events(&[5, 6]), true)), [(5, 5)]);
        assert_eq!(shown(whole.take(events(&[7]), false)), [(6, 1), (7, 1)]);
        assert_eq!(shown(whole.take(events(&[8]), true)), []);
        assert_eq!(shown(whole.take(Vec::new(), false)), [(8, 1)]);
    }
}
