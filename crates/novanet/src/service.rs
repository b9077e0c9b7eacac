//! The way in: a thread that keeps the caller's network namespace, and a handle that any task may hold.
//!
//! ```text
//! Handle --(bounded queue)--> thread "novanet": one act at a time, in the order they came
//! ```
//!
//! Taps, kernel settings and the program `nft` act on the network namespace of the thread they are used from, so
//! all of them are used from one thread, started by whoever opens the engine.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::address::{Names, Prefixes};
use crate::config::Config;
use crate::desired::Desired;
use crate::engine::Engine;
use crate::error::Error;
use crate::observe::Observed;
use crate::verify::Check;

/// How many acts may wait for the one at work. Callers beyond it wait for room.
const QUEUE: usize = 64;

/// What opening found and did.
#[derive(Debug, Default)]
pub struct Opened {
    /// Of the last good state on disk; none on a fresh node.
    pub generation: Option<u64>,
    /// Devices and tables of an earlier run that the last good state does not hold.
    pub swept: Vec<String>,
    /// What had to change to put the last good state back.
    pub restored: Vec<String>,
    /// What did not keep it from opening. When the last good state could not be put back, why.
    pub warnings: Vec<Error>,
}

/// What one apply did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub generation: u64,
    /// One line per change to a device or a setting; empty when all was as wished.
    pub changed: Vec<String>,
    pub rules_replaced: bool,
}

/// What a clear did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    pub removed: Vec<String>,
    /// Node settings put back to what they were before the engine changed them.
    pub restored: Vec<String>,
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

enum Act {
    Apply(Desired, Answer<Applied>),
    Observe(Answer<Observed>),
    Verify(Answer<Vec<Check>>),
    Attach(u16, u8, Answer<OwnedFd>),
    Clear(Answer<Cleared>),
    Close(oneshot::Sender<()>),
}

/// Opens engines.
#[derive(Debug)]
pub struct Service;

/// An open engine. Clones share it; when the last one is dropped the thread ends, and devices and rules stay as they
/// are for the guests that use them.
#[derive(Clone, Debug)]
pub struct Handle {
    acts: mpsc::Sender<Act>,
    names: Names,
    prefixes: Prefixes,
    opened: Arc<Opened>,
}

impl Service {
    /// Starts an engine in the calling thread's network namespace: checks the machine, takes the state folder, removes
    /// devices and tables with our tag that the last good state does not hold, and puts that state back.
    ///
    /// # Errors
    /// The first of [`crate::preflight`]'s errors; [`Error::StateLocked`], [`Error::StateRead`], [`Error::StateWrite`];
    /// [`Error::Netlink`] and [`Error::RulesLoad`] when the sweep failed; [`Error::Start`].
    pub async fn open(config: Config) -> Result<Handle, Error> {
        let (acts, queue) = mpsc::channel(QUEUE);
        let (answer, opening) = oneshot::channel();
        // A new thread is born into the network namespace of the one that starts it.
        std::thread::Builder::new()
            .name("novanet".to_owned())
            .spawn(move || run(config, queue, answer))
            .map_err(|source| Error::Start { source })?;
        let (names, prefixes, opened) = opening.await.map_err(|_| Error::Closed)??;
        Ok(Handle { acts, names, prefixes, opened: Arc::new(opened) })
    }
}

impl Handle {
    /// Makes the node as `desired` says: all of it, and nothing else of ours. Idempotent; repairs what drifted; the
    /// rules are replaced in one transaction, and only when they differ. On disk when it returns.
    ///
    /// When it fails, part of the change may be done, the last good state on disk is the earlier one, and the same call
    /// again is the way on. Dropping the future does not stop an apply that has begun.
    ///
    /// # Errors
    /// [`Error::Desired`], [`Error::NetworkNumber`], [`Error::PortOffset`], [`Error::Generation`] for the control plane
    /// to mend, with nothing changed; [`Error::DeviceTaken`] for the machine's owner; the others are worth a retry.
    pub async fn apply(&self, desired: Desired) -> Result<Applied, Error> {
        self.ask(|answer| Act::Apply(desired, answer)).await
    }

    /// What the kernel holds under our tag.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::RulesList`].
    pub async fn observe(&self) -> Result<Observed, Error> {
        self.ask(Act::Observe).await
    }

    /// Compares all of it with the last applied state: the node's checks, then each bridge's and its taps'.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::RulesList`].
    pub async fn verify(&self) -> Result<Vec<Check>, Error> {
        self.ask(Act::Verify).await
    }

    /// A descriptor for the port's tap, for the hypervisor: whole frames behind a `virtio_net_hdr`, non-blocking,
    /// close-on-exec. The guest has its link as long as one is open.
    ///
    /// # Errors
    /// [`Error::PortUnknown`] before the port was applied; [`Error::Tap`] when another descriptor is open.
    pub async fn attach(&self, network: u16, offset: u8) -> Result<OwnedFd, Error> {
        self.ask(|answer| Act::Attach(network, offset, answer)).await
    }

    /// Removes every device, table and file of this engine and puts the node's settings back, unless another engine on
    /// the machine still needs those. The engine stays open, as on a fresh node.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::RulesLoad`], [`Error::Sysctl`], [`Error::StateWrite`]; what is left goes next time.
    pub async fn clear(&self) -> Result<Cleared, Error> {
        self.ask(Act::Clear).await
    }

    /// Ends the engine after what waits before it, for all clones; when this returns, its folder can be opened again.
    /// Devices and rules stay.
    pub async fn close(self) {
        let (answer, closed) = oneshot::channel();
        if self.acts.send(Act::Close(answer)).await.is_ok() {
            let _ = closed.await;
        }
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn prefixes(&self) -> Prefixes {
        self.prefixes
    }

    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    async fn ask<T>(&self, act: impl FnOnce(Answer<T>) -> Act) -> Result<T, Error> {
        let (answer, asked) = oneshot::channel();
        self.acts.send(act(answer)).await.map_err(|_| Error::Closed)?;
        asked.await.map_err(|_| Error::Closed)?
    }
}

type Opening = oneshot::Sender<Result<(Names, Prefixes, Opened), Error>>;

fn run(config: Config, queue: mpsc::Receiver<Act>, opening: Opening) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = opening.send(Err(Error::Start { source }));
            return;
        }
    };
    runtime.block_on(async {
        match Engine::open(config).await {
            Ok((engine, opened)) => {
                let told = opening.send(Ok((engine.names().clone(), engine.prefixes(), opened)));
                if told.is_ok() {
                    serve(engine, queue).await;
                }
            }
            Err(error) => {
                let _ = opening.send(Err(error));
            }
        }
    });
}

/// An answer nobody waits for any more is dropped: the act was done all the same.
async fn serve(mut engine: Engine, mut queue: mpsc::Receiver<Act>) {
    while let Some(act) = queue.recv().await {
        match act {
            Act::Apply(desired, answer) => drop(answer.send(engine.apply(desired).await)),
            Act::Observe(answer) => drop(answer.send(engine.observe().await)),
            Act::Verify(answer) => drop(answer.send(engine.verify().await)),
            Act::Attach(network, offset, answer) => drop(answer.send(engine.attach(network, offset))),
            Act::Clear(answer) => drop(answer.send(engine.clear().await)),
            Act::Close(answer) => {
                drop(engine);
                let _ = answer.send(());
                return;
            }
        }
    }
}
