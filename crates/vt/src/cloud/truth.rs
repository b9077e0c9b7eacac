//! The store that the cloud stands on: opened, waited for when it is away, and found to be this cloud's own.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Code, Error};
use serde_json::{Value, json};
use store::{Compare, Op, OpAnswer, Range, Store, Txn};

use super::config::Config;
use super::identity::Identity;
use super::open::Say;
use crate::cli::store::serve::{self, Given, Served, Settings};
use crate::engine::{self, COPYING, IDENTITY, Place};

/// Between two attempts to reach a store that others serve.
const AGAIN_PAUSE: Duration = Duration::from_secs(2);
/// The wait is told of again after so many attempts.
const TELL_EVERY: u64 = 15;
/// In the data folder; held while the cloud runs.
const LOCK: &str = "lock";

/// The data folder belongs to this process from now on. A store that others serve cannot tell two of them apart.
pub fn lock(data: &Path) -> Result<File, Error> {
    let path = data.join(LOCK);
    let io =
        |error: std::io::Error| Error::new(Code::Failed, format!("{}: {error}", path.display())).reason("data_dir");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(io(error)),
        Err(TryLockError::WouldBlock) => {
            let busy = Error::new(Code::Conflict, format!("another `vt up` runs with {}", data.display()));
            Err(busy.hint("stop it first, or choose another folder with --data-dir").reason("data_dir"))
        }
    }
}

/// The store, and what has to be stopped in order behind it.
pub struct Truth {
    pub store: Arc<dyn Store>,
    member: Option<Served>,
}

impl Truth {
    pub async fn close(self) {
        if let Some(member) = self.member {
            member.close().await;
        }
    }
}

/// Opens the store, however long that takes where others have to agree or serve it.
pub async fn open(config: &Config, identity: &Identity, folder: &Path, say: Say<'_>) -> Result<Truth, Error> {
    if config.store == Place::Replicated {
        return replicated(config, identity, folder, say).await;
    }
    let access = config.store_access.read()?;
    let waits = !matches!(config.store, Place::Embedded(_));
    let mut wait = Wait::default();
    loop {
        let error = match engine::open(&config.store, &access, folder).await {
            Ok(store) => return Ok(Truth { store, member: None }),
            Err(error) => error,
        };
        if !waits || !error.code.retryable() {
            return Err(error);
        }
        let why = if error.why.is_empty() { &error.message } else { &error.why };
        wait.once(&config.store, why, say).await;
    }
}

/// Between attempts.
#[derive(Default)]
struct Wait {
    attempts: u64,
}

impl Wait {
    async fn once(&mut self, place: &Place, why: &str, say: Say<'_>) {
        if self.attempts.is_multiple_of(TELL_EVERY) {
            say(&format!("waiting for the store at {place}: {why}"));
        }
        self.attempts += 1;
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// A member of a cluster in this process. Answers once enough of the others are there.
async fn replicated(config: &Config, identity: &Identity, folder: &Path, say: Say<'_>) -> Result<Truth, Error> {
    let mut given: BTreeMap<&'static str, String> = config.store_member.iter().cloned().collect();
    given.entry("name").or_insert_with(|| identity.node.clone());
    given.insert("data-dir", folder.display().to_string());
    let settings = Settings::read(&Given(given), &BTreeMap::new()).map_err(|failure| failure.error)?;
    let mut wait = Wait::default();
    let served = loop {
        match serve::open(&settings).await {
            Ok(served) => break served,
            Err(failure) if failure.error.code.retryable() => {
                wait.once(&config.store, &failure.error.why, say).await;
            }
            Err(failure) => return Err(failure.error.reason("store_open_failed")),
        }
    };
    let look = Range::key(IDENTITY).keys_only();
    while let Err(error) = served.member.range(look.clone()).await {
        wait.once(&config.store, &error.to_string(), say).await;
    }
    Ok(Truth { store: served.member.clone(), member: Some(served) })
}

/// Refuses a store that belongs to another installation, and one that a copy into it left unfinished. An empty one
/// belongs to this one from now on.
pub async fn claim(store: &dyn Store, identity: &Identity, place: &Place) -> Result<(), Error> {
    let own = json!({ "schema_version": 1, "tag": identity.tag }).to_string();
    let txn = Txn::when([Compare::missing(COPYING), Compare::missing(IDENTITY)])
        .then([Op::put(IDENTITY, own)])
        .otherwise([Op::Range(Range::key(COPYING)), Op::Range(Range::key(IDENTITY))]);
    let answer = store.txn(txn).await.map_err(reconcile::rows::from_store)?;
    if answer.succeeded {
        return Ok(());
    }
    let mut found = answer.answers.into_iter().map(|answer| match answer {
        OpAnswer::Range(range) => range.items.into_iter().next(),
        _ => None,
    });
    let (copying, kept) = (found.next().flatten(), found.next().flatten());
    if copying.is_some() {
        let error = Error::new(Code::PreconditionFailed, format!("a copy into the store at {place} was not finished"));
        return Err(error
            .why("it holds a part of another store")
            .hint("empty it and run vt store migrate again, or start on the store that was copied")
            .reason("store_copy_unfinished"));
    }
    let kept: Value = kept.and_then(|row| serde_json::from_slice(&row.value).ok()).unwrap_or_default();
    if kept["tag"] == identity.tag.as_str() {
        return Ok(());
    }
    let tag = kept["tag"].as_str().unwrap_or("unknown");
    let error = Error::new(Code::Conflict, format!("the store at {place} belongs to another cloud"));
    Err(error
        .why(format!("its tag is {tag}, and this data folder's is {}", identity.tag))
        .hint("start it with the --data-dir that belongs to it, or give this one a store of its own with --store")
        .reason("store_of_another_cloud"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::memory::Memory;

    fn identity(tag: &str) -> Identity {
        serde_json::from_value(json!({
            "schema_version": 1, "tag": tag, "ipv4": "10.240.0.0/12", "ipv6": "fd00::/48", "node": "n",
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_store_belongs_to_the_first_cloud_that_opened_it() {
        let (store, place) = (Memory::new(), Place::Embedded(None));
        claim(&store, &identity("aaaaaa"), &place).await.unwrap();
        claim(&store, &identity("aaaaaa"), &place).await.unwrap();
        let error = claim(&store, &identity("bbbbbb"), &place).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_deref()), (Code::Conflict, Some("store_of_another_cloud")));
    }

    #[tokio::test]
    async fn an_unfinished_copy_is_no_store() {
        let (store, place) = (Memory::new(), Place::Embedded(None));
        store.txn(Txn::of([Op::put(COPYING, "x")])).await.unwrap();
        let error = claim(&store, &identity("aaaaaa"), &place).await.unwrap_err();
        assert_eq!(error.reason.as_deref(), Some("store_copy_unfinished"));
        assert!(store.range(Range::key(IDENTITY)).await.unwrap().items.is_empty(), "nothing was changed");
    }

    #[test]
    fn a_data_folder_has_one_cloud() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert_eq!(lock(folder.path()).unwrap_err().code, Code::Conflict);
        drop(held);
        lock(folder.path()).unwrap();
    }
}
