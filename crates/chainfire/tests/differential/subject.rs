//! ChainFire's etcd API over each engine, to be compared with etcd.

use std::sync::Arc;

use anyhow::{Context, Result};
use chainfire::door::{Options, solo};
use chainfire::{Embedded, Options as Durable};
use store::Store;
use store::memory::Memory;

use crate::server::{Server, folder};

/// What it costs to check a password is nothing that is compared.
const PASSWORD_ROUNDS: u32 = 10;

async fn door(store: Arc<dyn Store>, kept: impl Send + Sync + 'static) -> Result<Server> {
    let mut options = Options::new(["http://127.0.0.1:0".to_owned()]);
    options.password_rounds = PASSWORD_ROUNDS;
    let handle = solo::serve(options, store).await.context("a door")?;
    let endpoint = format!("http://{}", handle.addresses()[0]);
    Ok(Server::new(endpoint, (handle, kept)))
}

pub async fn memory() -> Result<Server> {
    door(Arc::new(Memory::new()), ()).await
}

pub async fn embedded() -> Result<Server> {
    let dir = tempfile::tempdir_in(folder())?;
    let store = Embedded::open(dir.path(), Durable::default()).await?;
    door(Arc::new(store), dir).await
}
