//! Server-sent events.

use futures::StreamExt;
use http::Method;
use reconcile::{Command, Verb};
use serde_json::{Value, json};

use crate::cloud::{self, Cloud, PATIENCE};

#[derive(Debug, Clone)]
pub struct Sent {
    pub event: String,
    pub id: Option<u64>,
    pub data: Value,
}

pub struct Watch {
    pieces: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Watch {
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { pieces: response.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event; nothing when the stream has ended.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let Some(data) = field("data: ") else { continue };
                return Some(Sent {
                    event: field("event: ").unwrap_or_default(),
                    id: field("id: ").map(|id| id.parse().unwrap()),
                    data: serde_json::from_str(&data).unwrap(),
                });
            }
            let piece = tokio::time::timeout(PATIENCE, self.pieces.next()).await.expect("an event in time")?;
            self.text += std::str::from_utf8(&piece.ok()?).unwrap();
        }
    }

    async fn until(&mut self, what: impl Fn(&Sent) -> bool) -> Vec<Sent> {
        let mut seen = Vec::new();
        loop {
            let sent = self.next().await.expect("the stream goes on");
            let found = what(&sent);
            seen.push(sent);
            if found {
                return seen;
            }
        }
    }
}

fn get(cloud: &Cloud, path: &str) -> reqwest::RequestBuilder {
    cloud.request(&cloud.one.token, Method::GET, path)
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on_with_what_changes() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let mut watch = Watch::open(get(&cloud, "/v1/things/watch")).await;
    let first = watch.until(|sent| sent.event == "sync").await;
    assert_eq!(first.len(), 2);
    assert_eq!((first[0].event.as_str(), &first[0].data["name"]), ("put", &json!("one-thing")));
    let row = cloud.thing("new").await;
    let put = watch.next().await.unwrap();
    assert_eq!((put.event.as_str(), &put.data["id"]), ("put", &row["id"]));
    assert!(put.data.get("progress").is_some() && put.id.is_some());
    // Another tenant's changes and other kinds are not here.
    cloud::create(&cloud.door, "thing", &cloud.two.scope, "theirs", json!({})).await;
    cloud.delete(&cloud.one.token, &format!("/v1/things/{}", row["id"].as_str().unwrap())).await.ok(202);
    let rest = watch.until(|sent| sent.event == "delete").await;
    assert!(rest.iter().all(|sent| sent.data["id"] == row["id"]), "{rest:?}");
    assert_eq!(rest.last().unwrap().data, json!({"id": row["id"]}));
}

#[tokio::test]
async fn a_watch_that_broke_off_goes_on_without_a_gap() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let mut watch = Watch::open(get(&cloud, "/v1/things/watch")).await;
    let synced = watch.until(|sent| sent.event == "sync").await.last().unwrap().id.unwrap();
    cloud.thing("a").await;
    let last = watch.next().await.unwrap().id.unwrap();
    assert!(last > synced);
    drop(watch);
    for name in ["b", "c", "d"] {
        cloud.thing(name).await;
    }
    let names = |seen: &[Sent]| -> std::collections::BTreeSet<String> {
        seen.iter().map(|sent| sent.data["name"].as_str().unwrap().to_owned()).collect()
    };
    let resumed = get(&cloud, "/v1/things/watch").header("Last-Event-ID", last.to_string());
    let seen = Watch::open(resumed).await.until(|sent| sent.data["name"] == "d").await;
    assert!(seen.iter().all(|sent| sent.id.is_none_or(|id| id > last)));
    assert!(names(&seen).is_superset(&["b", "c", "d"].map(str::to_owned).into()), "{seen:?}");
    // `from` begins with the revision itself.
    let seen = Watch::open(get(&cloud, &format!("/v1/things/watch?from={last}")))
        .await
        .until(|sent| sent.data["name"] == "d")
        .await;
    assert!(names(&seen).contains("a"));

    let bad = cloud.send(get(&cloud, "/v1/things/watch").header("Last-Event-ID", "x")).await;
    bad.problem(400, "invalid_argument");
    cloud.door.store().compact(store::Revision(last)).await.unwrap();
    let old = cloud.get(&cloud.one.token, "/v1/things/watch?from=2").await;
    if old.status == 200 {
        assert!(old.text.contains("revision_compacted"), "{}", old.text);
    } else {
        assert_eq!(old.problem(412, "precondition_failed")["reason"], "revision_compacted");
    }
}

#[tokio::test]
async fn an_id_is_sent_with_the_last_event_of_a_revision() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let mut watch = Watch::open(get(&cloud, "/v1/events/watch")).await;
    let verb = |name: &str| Verb::Create {
        kind: "fixed".into(),
        scope: cloud.one.scope.clone(),
        name: name.into(),
        spec: json!({}),
        owner: None,
    };
    let command = Command { origin: cloud::origin(), verbs: vec![verb("x"), verb("y"), verb("z")] };
    let receipt = cloud.door.submit(command).await.unwrap();
    let seen = [watch.next().await.unwrap(), watch.next().await.unwrap(), watch.next().await.unwrap()];
    assert_eq!(seen.each_ref().map(|sent| sent.id), [None, None, Some(receipt.sequence)]);
    assert!(seen.iter().all(|sent| sent.data["sequence"] == receipt.sequence));
}

#[tokio::test]
async fn the_log_is_followed_from_any_sequence_without_a_gap() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let mut watch = Watch::open(get(&cloud, "/v1/events/watch?from=0")).await;
    let past = watch.until(|sent| sent.data["type"] == "thing.observed").await;
    assert_eq!(past[0].data["type"], "thing.created");
    let writing = async {
        for number in 0..20 {
            cloud.thing(&format!("n{number}")).await;
        }
    };
    let mut early = Watch::open(get(&cloud, "/v1/events/watch?from=1")).await;
    let reading = early.until(|sent| sent.data["payload"]["name"] == "n19");
    let ((), seen) = tokio::join!(writing, reading);
    let made: Vec<&str> = seen
        .iter()
        .filter(|sent| sent.data["type"] == "thing.created")
        .map(|sent| sent.data["payload"]["name"].as_str().unwrap())
        .collect();
    let expected: Vec<String> =
        std::iter::once("one-thing".to_owned()).chain((0..20).map(|n| format!("n{n}"))).collect();
    assert_eq!(made, expected);
    let sequences: Vec<u64> = seen.iter().map(|sent| sent.data["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted());
}

#[tokio::test]
async fn a_watch_ends_when_its_token_goes() {
    let cloud = Cloud::open().await;
    let (token, id) = cloud::token(&cloud.door, &cloud.one.scope, "short", json!({})).await;
    let mut watch = Watch::open(cloud.request(&token, Method::GET, "/v1/things/watch")).await;
    watch.until(|sent| sent.event == "sync").await;
    cloud.delete(&cloud.one.token, &format!("/v1/tokens/{id}")).await.ok(202);
    while watch.next().await.is_some() {}
    cloud.get(&token, "/v1/whoami").await.problem(401, "unauthenticated");
}
