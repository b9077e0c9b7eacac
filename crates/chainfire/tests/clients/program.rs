//! Runs a program at several servers and compares what it says.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::servers::{Server, chainfire, etcd};

/// A client that is not done by then hangs.
const PROGRAM_MAX: Duration = Duration::from_mins(5);

/// The real etcd first, then ChainFire over each of the engines that serve one store alone, and over one of three members.
pub async fn servers() -> Vec<(&'static str, Server)> {
    vec![
        ("etcd", etcd::start().await.expect("etcd")),
        ("embedded", chainfire::embedded().await.expect("a door")),
        ("follower", chainfire::follower().await.expect("three members")),
    ]
}

pub fn port(server: &Server) -> &str {
    server.endpoint.rsplit(':').next().expect("an address has a port")
}

/// Standard output; panics when the program fails.
pub async fn output(command: &mut Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let done = timeout(PROGRAM_MAX, child.wait_with_output()).await;
    let done = done.unwrap_or_else(|_| panic!("{command:?} hangs")).expect("an output");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let warned = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} ended with {}:\n{said}{warned}", done.status);
    said
}

/// Runs the program that `command` makes at every server; all must say what it says at the first.
pub async fn same(command: impl Fn(&Server) -> Command) {
    let mut expected: Option<String> = None;
    for (name, server) in servers().await {
        // One more at etcd, which was asked by a write whether it is there.
        etcd::takes_writes(&server.endpoint).await;
        let said = output(&mut command(&server)).await;
        let expected = expected.get_or_insert_with(|| said.clone());
        assert!(expected.lines().count() > 1, "it says something:\n{said}");
        let differ: Vec<_> = expected.lines().zip(said.lines()).filter(|(a, b)| a != b).collect();
        assert!(*expected == said, "{name} differs from etcd in {differ:#?}\n-- all of it:\n{said}");
    }
}
