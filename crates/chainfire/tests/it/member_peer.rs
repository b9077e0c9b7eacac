//! What comes in at the port for members.

use std::time::Duration;

use chainfire::member::peer::address::Address;
use chainfire::member::peer::frame::{self, MESSAGE_BYTES_MAX};
use chainfire::member::peer::greeting::{GreetingError, greet};
use chainfire::member::peer::network::Pipe;
use chainfire::member::peer::wire::{Answered, Denial, Hello, Lane, MAGIC, Question, VERSION};
use chainfire::member::{Member, Options, Place, Simulated};
use store::{LeaseId, Range, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::member_cluster::{WAIT_MAX, put_soon, until, url};
use crate::member_net::Hub;

async fn alone(hub: &Hub) -> Member {
    let options = Options {
        name: "m1".to_owned(),
        place: Place::Simulated(Simulated::default()),
        listen_peer_urls: vec![url("m1")],
        advertise_peer_urls: vec![url("m1")],
        network: hub.network("m1"),
        ..Options::default()
    };
    let member = Member::open(options).await.unwrap();
    put_soon(&member, "key", "").await;
    member
}

async fn call(hub: &Hub) -> Pipe {
    let to: Address = url("m1").parse().unwrap();
    hub.network("stranger").connect(&to).await.unwrap()
}

fn hello(cluster: Option<u64>, to: Option<u64>) -> Hello {
    Hello { cluster, from: Some(7), to, lane: Lane::Talk }
}

async fn ask(pipe: &mut Pipe, question: &Question) -> Answered {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, 1, question).unwrap();
    pipe.write_all(&bytes).await.unwrap();
    loop {
        let frame = frame::take(pipe, MESSAGE_BYTES_MAX).await.unwrap().expect("an answer");
        if !frame.is_sign_of_life() {
            return frame::message(&frame.message).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_mean_this_member_is_told() {
    use chainfire::door::Host;
    let hub = Hub::default();
    let member = alone(&hub).await;
    let (cluster, id) = (member.header().cluster_id, member.id());

    let mut pipe = call(&hub).await;
    let greeted = greet(&mut pipe, &hello(Some(cluster), Some(id))).await;
    assert_eq!(greeted.unwrap(), (cluster, id));
    let greeted = greet(&mut call(&hub).await, &hello(Some(cluster + 1), None)).await;
    assert!(matches!(greeted, Err(GreetingError::OtherCluster { cluster: told }) if told == cluster), "{greeted:?}");
    let greeted = greet(&mut call(&hub).await, &hello(Some(cluster), Some(id + 1))).await;
    assert!(matches!(greeted, Err(GreetingError::OtherMember { member: told }) if told == id), "{greeted:?}");

    // One that is about to join may ask who is there, and nothing else.
    let mut pipe = call(&hub).await;
    greet(&mut pipe, &hello(None, None)).await.unwrap();
    let Answered::Facts(facts) = ask(&mut pipe, &Question::Facts).await else { panic!("no facts") };
    assert_eq!((facts.cluster, facts.member, facts.members.len()), (cluster, id, 1));
    for question in [Question::ReadIndex, Question::KeepAlive(LeaseId(1)), Question::Copy, Question::SnapshotEnd] {
        let answered = ask(&mut pipe, &question).await;
        assert!(matches!(answered, Answered::Denied(Denial::Misplaced)), "{question:?}: {answered:?}");
    }
    // One that says it is a member and is none is told since when.
    let mut pipe = call(&hub).await;
    greet(&mut pipe, &hello(Some(cluster), None)).await.unwrap();
    until("it is told that it is no member", async || {
        matches!(ask(&mut pipe, &Question::ReadIndex).await, Answered::Denied(Denial::NotMember { .. })).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_members_protocol_ends() {
    use chainfire::door::Host;
    let hub = Hub::default();
    let member = alone(&hub).await;
    let ended = async |mut pipe: Pipe| {
        let mut answer = Vec::new();
        let read = timeout(WAIT_MAX, pipe.read_to_end(&mut answer)).await.expect("the connection ends");
        (read.ok(), answer)
    };
    let mut pipe = call(&hub).await;
    pipe.write_all(b"GET /version HTTP/1.1\r\nHost: m1\r\n\r\n").await.unwrap();
    assert!(ended(pipe).await.1.is_empty());

    let mut pipe = call(&hub).await;
    pipe.write_all(&MAGIC).await.unwrap();
    pipe.write_all(&(VERSION + 1).to_le_bytes()).await.unwrap();
    let (_, answer) = ended(pipe).await;
    assert_eq!(answer[..MAGIC.len()], MAGIC);
    assert_eq!(answer[MAGIC.len()..], VERSION.to_le_bytes(), "so that the other side can say what is wrong");

    // A hello that never ends, and a message that is longer than any.
    let mut pipe = call(&hub).await;
    pipe.write_all(&MAGIC).await.unwrap();
    pipe.write_all(&VERSION.to_le_bytes()).await.unwrap();
    pipe.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    ended(pipe).await;
    let mut pipe = call(&hub).await;
    greet(&mut pipe, &hello(Some(member.header().cluster_id), None)).await.unwrap();
    pipe.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    ended(pipe).await;
    // One that says nothing is not waited for.
    ended(call(&hub).await).await;
    let mut pipe = call(&hub).await;
    greet(&mut pipe, &hello(Some(member.header().cluster_id), None)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    ended(pipe).await;

    member.range(Range::key("key")).await.expect("the member goes on");
}
