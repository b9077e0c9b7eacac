//! The suite of the store, each case on an etcd of its own.

use store::conformance::Subject;

use crate::cluster::{Server, Settings, available};

/// A request as large as the store allows, in etcd's packing.
const ROOM: &str = "--max-request-bytes=1703936";

async fn open() -> Result<Subject, String> {
    if !available() {
        return Err("no etcd".to_owned());
    }
    let server = Server::start(Settings { flags: vec![ROOM.to_owned()], ..Settings::default() }).await;
    Ok(Subject::holding(server.store().await, server))
}

store::conformance::suite!(open);
