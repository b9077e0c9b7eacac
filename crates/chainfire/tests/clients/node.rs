//! npm's client.

use std::path::Path;
use std::process::Command as Installer;

use tokio::process::Command;

use crate::packages::{installed, run};
use crate::program::{port, same};
use crate::servers::etcd;

const ETCD3: &str = "etcd3@1.1.2";

#[tokio::test(flavor = "multi_thread")]
async fn etcd3_of_npm_sees_what_it_sees_of_etcd() {
    if let Some(reason) = etcd::is_missing() {
        println!("skipped: {reason}");
        return;
    }
    let install = |dir: &Path| {
        let flags = [
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
            "--fetch-retries=1",
            "--prefix",
        ];
        run(Installer::new("npm").args(flags).arg(dir).arg(ETCD3))
    };
    let modules = match installed("npm-etcd3-1.1.2", install) {
        Ok(dir) => dir.join("node_modules"),
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs/node_etcd3.js");
    same(|server| {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &modules).arg(&program).arg(port(server));
        command
    })
    .await;
}
