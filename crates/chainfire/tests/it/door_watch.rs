//! Watches over the door.

use std::time::Duration;

use chainfire::door::Options;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::watch_client::WatchClient;
use etcd::proto::etcdserverpb::watch_create_request::FilterType;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use etcd::proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::door_support::{Door, channel, serve_for_test, serve_with};

struct Client {
    kv: KvClient<Channel>,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Client {
    async fn new(door: &Door) -> Self {
        let channel = channel(door).await;
        let (requests, receiver) = mpsc::channel(4096);
        let answers =
            WatchClient::new(channel.clone()).watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { kv: KvClient::new(channel).max_decoding_message_size(64 << 20), requests, answers }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(Duration::from_mins(1), self.answers.message()).await;
        next.expect("an answer comes").unwrap().expect("the stream goes on")
    }

    /// The answer that the watch is there.
    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        let created = self.next().await;
        assert!(created.created, "{created:?}");
        created
    }

    async fn put(&mut self, key: &str, value: impl Into<bytes::Bytes>) -> i64 {
        let put = PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() };
        self.kv.put(put).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn delete(&mut self, key: &str) {
        let delete = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        self.kv.delete_range(delete).await.unwrap();
    }
}

fn prefix(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..WatchCreateRequest::default() }
}

fn told(answer: &WatchResponse) -> Vec<(i64, String, i64)> {
    let event = |event: &etcd::proto::mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        (answer.watch_id, String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision)
    };
    answer.events.iter().map(event).collect()
}

#[tokio::test]
async fn watches_see_what_happens_after_they_were_made_and_what_happened_before_when_asked() {
    let door = serve_for_test().await;
    let mut client = Client::new(&door).await;
    client.put("a1", "x").await;
    client.put("a2", "y").await;
    let created = client.create(prefix("a", "b")).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision, created.canceled), (0, 3, false));
    let from = WatchCreateRequest { start_revision: 2, watch_id: 7, prev_kv: true, ..prefix("a", "b") };
    assert_eq!(client.create(from).await.watch_id, 7);
    let past = client.next().await;
    assert_eq!(told(&past), [(7, "a1".into(), 2), (7, "a2".into(), 3)]);
    client.put("a1", "z").await;
    client.delete("b-not-watched").await;
    client.delete("a2").await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let answer = client.next().await;
        for event in &answer.events {
            assert_eq!(event.prev_kv.is_some(), answer.watch_id == 7, "{answer:?}");
            assert_eq!(event.r#type() == EventType::Delete, event.kv.as_ref().unwrap().mod_revision == 5);
        }
        seen.extend(told(&answer));
    }
    seen.sort();
    assert_eq!(seen, [(0, "a1".into(), 4), (0, "a2".into(), 5), (7, "a1".into(), 4), (7, "a2".into(), 5)]);

    client.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 })).await;
    let canceled = client.next().await;
    assert!((canceled.watch_id, canceled.canceled, canceled.created) == (7, true, false), "{canceled:?}");
    client.put("a3", "").await;
    assert_eq!(told(&client.next().await), [(0, "a3".into(), 6)]);
}

#[tokio::test]
async fn a_watch_that_begins_later_waits_for_its_revision() {
    let door = serve_for_test().await;
    let mut client = Client::new(&door).await;
    let created = client.create(WatchCreateRequest { start_revision: 4, ..prefix("a", "") }).await;
    assert_eq!(created.header.unwrap().revision, 1);
    for _ in 2..=4 {
        client.put("a", "").await;
    }
    assert_eq!(told(&client.next().await), [(0, "a".into(), 4)]);
}

#[tokio::test]
async fn filters_leave_events_out_and_watches_that_cannot_be_say_why() {
    let door = serve_for_test().await;
    let mut client = Client::new(&door).await;
    let only =
        |filter: FilterType, watch_id| WatchCreateRequest { filters: vec![filter.into()], watch_id, ..prefix("a", "") };
    client.create(only(FilterType::Noput, 1)).await;
    client.create(only(FilterType::Nodelete, 2)).await;
    client.put("a", "").await;
    assert_eq!(told(&client.next().await), [(2, "a".into(), 2)]);
    client.delete("a").await;
    assert_eq!(told(&client.next().await), [(1, "a".into(), 3)]);

    let refused = client.create(only(FilterType::Noput, 1)).await;
    assert!(refused.canceled && refused.watch_id == -1);
    assert_eq!(refused.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let refused = client.create(prefix("b", "a")).await;
    assert!(refused.canceled && refused.watch_id == -1);
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    let negative = client.create(WatchCreateRequest { start_revision: -1, ..prefix("a", "") }).await;
    assert!(negative.canceled && negative.watch_id == -1);

    for _ in 0..5 {
        client.put("a", "").await;
    }
    client.kv.compact(CompactionRequest { revision: 6, physical: false }).await.unwrap();
    client.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 2 })).await;
    while !client.next().await.canceled {}
    let created = client.create(WatchCreateRequest { start_revision: 5, watch_id: 9, ..prefix("a", "") }).await;
    assert!(!created.canceled);
    let canceled = client.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.compact_revision), (9, true, 6));
}

#[tokio::test]
async fn progress_is_told_when_asked_for_and_every_now_and_then() {
    let period = Duration::from_millis(100);
    let options = Options { progress_interval: period, ..Options::new(["http://127.0.0.1:0".into()]) };
    let door = serve_with(options).await;
    let mut client = Client::new(&door).await;
    client.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let nothing_watched = client.next().await;
    assert_eq!((nothing_watched.watch_id, nothing_watched.header.unwrap().revision), (-1, 1));
    client.create(prefix("a", "")).await;
    client.create(prefix("b", "c")).await;
    client.put("b", "").await;
    assert_eq!(told(&client.next().await), [(1, "b".into(), 2)]);
    client.put("elsewhere", "").await;
    client.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = client.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, 3, 0));
    client.create(WatchCreateRequest { progress_notify: true, ..prefix("a", "b") }).await;
    let progress = client.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (2, 3, 0));
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_nothing_and_holds_up_nobody() {
    const PUTS: i64 = 400;
    let door = serve_for_test().await;
    let mut slow = Client::new(&door).await;
    let mut other = Client::new(&door).await;
    for watch_id in 1..=3 {
        slow.create(WatchCreateRequest { watch_id, ..prefix("a", "b") }).await;
        other.create(WatchCreateRequest { watch_id, ..prefix("a", "b") }).await;
    }
    let large = bytes::Bytes::from(vec![7; 64 * 1024]);
    let mut writer = Client::new(&door).await;
    let writing = tokio::spawn(async move {
        for _ in 0..PUTS {
            writer.put("a", large.clone()).await;
        }
    });
    for client in [&mut other, &mut slow] {
        let mut next = [0, 2, 2, 2];
        while next[1..].iter().any(|next| *next < PUTS + 2) {
            for (id, _, revision) in told(&client.next().await) {
                assert_eq!(revision, next[id as usize], "watch {id} sees every revision once and in order");
                next[id as usize] += 1;
            }
        }
    }
    writing.await.unwrap();
    // Those that had fallen behind are with the others again.
    other.put("a", "end").await;
    let mut last = Vec::new();
    while last.len() < 3 {
        last.extend(told(&slow.next().await));
    }
    last.sort();
    assert_eq!(last, [1, 2, 3].map(|id| (id, "a".into(), PUTS + 2)));
}

#[tokio::test]
async fn a_thousand_watches_of_one_prefix_all_hear() {
    const WATCHES: i64 = 1000;
    let door = serve_for_test().await;
    let mut client = Client::new(&door).await;
    for watch_id in 1..=WATCHES {
        client.create(WatchCreateRequest { watch_id, ..prefix("a", "b") }).await;
    }
    for _ in 0..3 {
        client.put("a", "x").await;
    }
    let mut next = vec![2; WATCHES as usize + 1];
    let mut left = WATCHES * 3;
    while left > 0 {
        for (id, _, revision) in told(&client.next().await) {
            assert_eq!(revision, next[id as usize]);
            next[id as usize] += 1;
            left -= 1;
        }
    }
}
