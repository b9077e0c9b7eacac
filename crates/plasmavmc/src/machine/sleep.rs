//! Halting a machine, and putting it to sleep.
//!
//! ```text
//!   halt -> save devices (and memory that is no file) -> all of it durable, with checksums -> record: asleep -> end
//! ```
//!
//! Whatever fails before the record is written, the machine goes on running. When this program dies before the state is
//! written, the next one lets the machine go on; after that it writes the record. With the record it sleeps, whatever happens
//! to its process.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Live, Machine, SCRATCH_FILE};
use crate::Error;
use crate::qmp;
use crate::record::{Asleep, Run};
use crate::saved::{self, Manifest};
use crate::seen::{EndCode, Phase};

/// Memory that is no file goes to the disk as a stream.
const SAVE_DEADLINE: Duration = Duration::from_mins(5);

impl Machine {
    /// See [`crate::Engine::pause`]. Runs to its end once begun.
    pub async fn pause(self: &Arc<Self>) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        if self.is_asleep() {
            return Ok(());
        }
        let (_, monitor) = self.awake()?;
        self.halt(&monitor).await?;
        self.keep(|record| record.paused = true)?;
        self.enter(Phase::Warm);
        Ok(())
    }

    /// See [`crate::Engine::resume`]. Runs to its end once begun.
    pub async fn resume(self: &Arc<Self>) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        if self.state.lock().phase != Phase::Warm {
            return Ok(());
        }
        let (_, monitor) = self.awake()?;
        self.go_on(&monitor).await
    }

    /// See [`crate::Engine::sleep`]. Runs to its end once begun.
    pub async fn sleep(self: &Arc<Self>) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        if self.is_asleep() {
            return Ok(());
        }
        let (live, monitor) = self.awake()?;
        let was_warm = self.state.lock().phase == Phase::Warm;
        self.halt(&monitor).await?;
        self.enter(Phase::Warm);
        if let Err(why) = self.save(&monitor).await {
            if let Err(error) = saved::use_up(&self.folder) {
                tracing::warn!(id = %self.id, %error, "what was half saved could not be removed");
            }
            if !was_warm {
                self.go_on(&monitor).await?;
            }
            return Err(Error::Sleep { id: self.id.clone(), why });
        }
        live.judge(EndCode::Asleep, "");
        self.end_process(&live).await?;
        live.until_over().await;
        Ok(())
    }

    fn is_asleep(&self) -> bool {
        self.state.lock().phase == Phase::Sleeping
    }

    /// The run of a machine whose guest has reported.
    fn awake(&self) -> Result<(Arc<Live>, qmp::Client), Error> {
        let (live, known, phase) = {
            let state = self.state.lock();
            (state.live.clone(), state.guest.is_some(), state.phase)
        };
        let live = live.filter(|live| live.process.alive() && matches!(phase, Phase::Running | Phase::Warm));
        let live = live.ok_or_else(|| Error::NotRunning { id: self.id.clone() })?;
        let guest = |why: &str| Error::Guest { id: self.id.clone(), why: why.to_owned() };
        if !known {
            return Err(guest("it has not reported yet"));
        }
        let monitor = live.monitor.clone().ok_or_else(|| guest("its monitor does not answer"))?;
        Ok((live, monitor))
    }

    async fn halt(&self, monitor: &qmp::Client) -> Result<(), Error> {
        let stopped = monitor.stop().await;
        stopped.map_err(|error| Error::Guest { id: self.id.clone(), why: error.to_string() })
    }

    /// Lets a halted machine run. Its clock is set when its guest is next spoken to.
    pub(super) async fn go_on(&self, monitor: &qmp::Client) -> Result<(), Error> {
        let went = monitor.cont().await;
        went.map_err(|error| Error::Guest { id: self.id.clone(), why: error.to_string() })?;
        // Not written down: whoever finds it running will not take it for paused, and someone waits for it.
        self.state.lock().record.paused = false;
        self.enter(Phase::Running);
        let channel = self.channel();
        if let Ok(channel) = channel
            && let Err(error) = channel.set_clock(self.context.clock.now_ns()).await
        {
            tracing::debug!(id = %self.id, %error, "the guest's clock was not set");
        }
        Ok(())
    }

    /// The error is the end of a sentence.
    async fn save(&self, monitor: &qmp::Client) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let run = self.state.lock().record.run.clone().ok_or("it has no process")?;
        let state = saved::create(&self.folder.join(saved::STATE)).map_err(text)?;
        let written = tokio::time::timeout(SAVE_DEADLINE, monitor.save(state.into())).await;
        written.map_err(|_| "its state was not written in time")?.map_err(|error| error.to_string())?;
        self.keep_saved(&run).await
    }

    /// Ends what an earlier program began, as far as a halted machine whose state is written. False when it cannot be.
    pub(super) async fn finish_sleep(&self, run: &Run) -> bool {
        match self.keep_saved(run).await {
            Ok(()) => true,
            Err(why) => {
                tracing::warn!(id = %self.id, why, "a machine that was to sleep goes on running");
                false
            }
        }
    }

    /// Makes what was saved durable, and then says so.
    async fn keep_saved(&self, run: &Run) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let spec = self.state.lock().record.spec.clone();
        let shape = self.context.shape(&spec, run.accelerator);
        let (folder, now_ms, has_scratch) = (self.folder.clone(), self.context.clock.now_ms(), shape.scratch);
        let durable = move || {
            if has_scratch {
                File::open(folder.join(SCRATCH_FILE))?.sync_all()?;
            }
            Manifest::seal(&folder, shape, now_ms)
        };
        tokio::task::spawn_blocking(durable).await.map_err(|error| error.to_string())?.map_err(text)?;
        let asleep = Asleep { since_ms: now_ms, boot_id: run.boot_id.clone(), started_at_ms: run.started_at_ms };
        self.keep(|record| (record.asleep, record.paused) = (Some(asleep), false)).map_err(|error| error.to_string())
    }
}
