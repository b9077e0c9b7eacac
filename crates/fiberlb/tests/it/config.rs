//! Applying, refusing, persisting, opening again.

use fiberlb::{Desired, Mode, Outcome, Service};

use crate::support::*;

#[tokio::test]
async fn a_wish_with_one_fault_changes_nothing() {
    let (node, backend) = (Node::new().await, Server::word("ok").await);
    node.serve(&[backend.addr]).await;
    let before = (node.status(), std::fs::read(node.folder.path().join("ingress.json")).unwrap());
    let http = node.http.port();
    let tls = node.tls.port();
    for (routes, code) in [
        (vec![http_route("b.test", &[]), tcp_route(25, &[])], "ingress_port_denied"),
        (vec![http_route("b.test", &[]), tcp_route(http, &[])], "ingress_port_clash"),
        (vec![http_route("b.test", &[]), tcp_route(tls, &[])], "ingress_port_clash"),
        (vec![http_route("B.test", &[])], "ingress_host_invalid"),
        (
            vec![route("1", Mode::Tls { host: "b.test".into() }, &[]), tls_route("b.test", &[])],
            "ingress_host_duplicate",
        ),
    ] {
        let error = node.handle.apply(Desired { generation: 9, routes }).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(!error.hint().is_empty());
    }
    assert_eq!((node.status(), std::fs::read(node.folder.path().join("ingress.json")).unwrap()), before);
    assert_eq!(get(node.http, "a.test").await.body, "ok");
}

#[tokio::test]
async fn older_generations_are_ignored() {
    let node = Node::new().await;
    let apply = async |generation, routes| {
        let applied = node.handle.apply(Desired { generation, routes }).await.unwrap();
        (applied.generation, applied.outcome)
    };
    assert_eq!(apply(5, vec![http_route("a.test", &[])]).await, (5, Outcome::Changed));
    assert_eq!(apply(5, vec![http_route("a.test", &[])]).await, (5, Outcome::Unchanged));
    assert_eq!(apply(4, vec![]).await, (5, Outcome::Stale));
    assert_eq!(node.status().routes.len(), 1);
    assert_eq!(apply(5, vec![]).await, (5, Outcome::Changed));
    assert_eq!(node.status().routes.len(), 0);
}

#[tokio::test]
async fn the_last_good_configuration_is_served_after_a_restart() {
    let (backend, port) = (Server::word("ok").await, free_port().await);
    let folder = tempfile::tempdir().unwrap();
    let first = Service::open(config(folder.path())).await.unwrap();
    let routes = vec![http_route("a.test", &[backend.addr]), tcp_route(port.port(), &[backend.addr])];
    first.apply(Desired { generation: 7, routes }).await.unwrap();
    first.apply(Desired { generation: 8, routes: vec![tcp_route(25, &[])] }).await.unwrap_err();
    let addr = first.http_addrs()[0];
    assert_eq!(get(addr, "a.test").await.body, "ok");
    // Not closed, dropped: as little is done as when the process is killed.
    drop(first);
    within("free ports", async {
        while tokio::net::TcpListener::bind(addr).await.is_err() || tokio::net::TcpListener::bind(port).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;

    let second = Service::open(config(folder.path())).await.unwrap();
    assert_eq!(second.status().generation, 7);
    assert_eq!(get(second.http_addrs()[0], "a.test").await.body, "ok");
    assert_eq!(get(port, "a.test").await.body, "ok");
    assert_eq!(
        second.apply(Desired { generation: 6, routes: vec![] }).await.unwrap().outcome,
        Outcome::Stale,
        "what was accepted before the restart still counts"
    );
    second.close().await;
}

#[tokio::test]
async fn what_cannot_be_written_is_not_served() {
    let node = Node::new().await;
    node.serve(&[]).await;
    // A folder where the temporary file would be: root may write anywhere, but not over that.
    std::fs::create_dir(node.folder.path().join("ingress.json.tmp")).unwrap();
    let error = node.handle.apply(Desired { generation: 9, routes: vec![] }).await.unwrap_err();
    assert_eq!(error.code(), "ingress_persist_failed");
    assert!(error.hint().contains("ingress.json"), "{}", error.hint());
    assert_eq!(node.status().generation, 1);
    assert_eq!(get(node.http, "a.test").await.code(), "no_backend");
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_setting_to_change() {
    let holder = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let taken = holder.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = config(folder.path());
    wanted.http = vec![any_port(), taken];
    let error = Service::open(wanted).await.unwrap_err();
    assert_eq!(error.code(), "ingress_port_taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    assert!(error.hint().contains("ingress.http"), "{}", error.hint());
    let mut wanted = config(folder.path());
    wanted.tls = Some(taken);
    let error = Service::open(wanted).await.unwrap_err();
    assert!(error.hint().contains("ingress.tls") && error.hint().contains(&taken.port().to_string()));
}

#[tokio::test]
async fn a_route_whose_listener_the_node_lacks_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = config(folder.path());
    wanted.tls = None;
    let handle = Service::open(wanted).await.unwrap();
    handle.apply(Desired { generation: 1, routes: vec![tls_route("a.test", &[])] }).await.unwrap();
    let status = handle.status();
    assert!(status.routes[0].problem.as_deref().unwrap().contains("ingress.tls"), "{status:?}");
}
