//! Servers that speak etcd's protocol: each on loopback, in a folder of its own, ended when dropped.

pub mod chainfire;
pub mod etcd;

use std::any::Any;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use parking_lot::Mutex;

pub struct Server {
    pub endpoint: String,
    log: Option<PathBuf>,
    /// Whatever lives as long as the server.
    _kept: Box<dyn Any + Send + Sync>,
}

impl Server {
    pub fn new(endpoint: String, kept: impl Any + Send + Sync) -> Self {
        Self { endpoint, log: None, _kept: Box::new(kept) }
    }

    /// What it said, to tell why it ended.
    pub fn last_words(&self) -> String {
        self.log.as_ref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default()
    }
}

/// In memory where there is such a place: etcd waits for the disk at each write, and that is not what is looked at.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

pub fn free_port() -> Result<u16> {
    // Two servers that are being started at once would else be told the same now and then.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port on loopback")?;
        let port = listener.local_addr()?.port();
        if GIVEN.lock().insert(port) {
            return Ok(port);
        }
    }
}
