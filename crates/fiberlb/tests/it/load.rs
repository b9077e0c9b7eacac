//! Traffic while backends come and go: not one request may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::*;

const REQUESTS: usize = 2_000;
const CLIENTS: usize = 16;
const SWAPS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_are_swapped_under_load_and_no_request_fails() {
    let node = Arc::new(Node::new().await);
    let mut serving = vec![Server::echo().await, Server::echo().await];
    node.serve(&[serving[0].addr, serving[1].addr]).await;

    let done = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let (node, done, stop) = (Arc::clone(&node), Arc::clone(&done), Arc::clone(&stop));
        clients.push(tokio::spawn(async move {
            let mut client = Raw::open(node.http).await;
            let mut count = 0;
            // At least the agreed number, and as long as backends are being swapped.
            while count < REQUESTS / CLIENTS || !stop.load(Ordering::SeqCst) {
                let body = format!("{number} {count}");
                let answer = if count % 3 == 0 {
                    let length = body.len();
                    client.ask(&format!("POST / HTTP/1.1\nhost: a.test\ncontent-length: {length}\n\n{body}")).await
                } else {
                    client.ask(&format!("GET /{number}/{count} HTTP/1.1\nhost: a.test\n\n")).await
                };
                assert_eq!(answer.status, 200, "{answer:?}");
                let expected = if count % 3 == 0 { body } else { format!("GET /{number}/{count} ") };
                assert!(answer.body.contains(&expected), "{answer:?}");
                if count % 50 == 49 {
                    client = Raw::open(node.http).await;
                }
                count += 1;
                done.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }));
    }

    for swap in 0..SWAPS {
        eventually("some traffic", || done.load(Ordering::SeqCst) > swap * 50).await;
        let mut next = vec![Server::echo().await, Server::echo().await];
        if swap % 2 == 0 {
            // One stays, one goes.
            next[0] = serving.swap_remove(0);
        }
        node.serve(&[next[0].addr, next[1].addr]).await;
        // As soon as the status says that the old ones are empty they are gone for good.
        eventually("drained", || node.status().routes[0].backends.iter().all(|one| !one.draining)).await;
        serving = next;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        within("a client", client).await.unwrap();
    }
    assert!(done.load(Ordering::SeqCst) >= REQUESTS);
    eventually("none in flight", || node.active() == 0).await;
}
