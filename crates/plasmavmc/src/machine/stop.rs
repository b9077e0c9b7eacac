//! Ending a machine: the guest is asked, then the monitor told, then the kernel.

use std::sync::Arc;
use std::time::Duration;

use super::{Live, Machine, SCRATCH_FILE};
use crate::Error;
use crate::saved;
use crate::seen::{EndCode, Phase};

/// What a guest may take beyond the workload's grace: unmounting, powering off, all under emulation.
const GRACE_MARGIN: Duration = Duration::from_secs(5);
/// The longest grace; a caller that asks for more gets this.
const GRACE_SECONDS_MAX: u32 = 600;
const QUIT_DEADLINE: Duration = Duration::from_secs(2);
const KILL_DEADLINE: Duration = Duration::from_secs(10);

impl Machine {
    /// See [`crate::Engine::stop`]. Runs to its end once begun.
    pub async fn stop(self: &Arc<Self>, grace_seconds: u32) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        let (live, wanted) = {
            let state = self.state.lock();
            (state.live.clone(), state.record.wanted)
        };
        if wanted {
            // Written before the act: an engine that dies in the middle does not take the end for a failure.
            self.keep(|record| record.wanted = false)?;
        }
        match live {
            Some(live) => self.end_run(&live, grace_seconds).await,
            None => {
                if self.state.lock().record.asleep.is_some() {
                    self.forget_sleep()?;
                }
                if self.state.lock().phase != Phase::Stopped {
                    self.enter(Phase::Stopped);
                }
                Ok(())
            }
        }
    }

    /// A machine that is to stop does not keep what it would wake with.
    fn forget_sleep(&self) -> Result<(), Error> {
        self.keep(|record| record.asleep = None)?;
        let _ = std::fs::remove_file(self.folder.join(SCRATCH_FILE));
        saved::discard(&self.folder).map_err(|source| {
            let path = self.folder.clone();
            Error::State { id: self.id.clone(), path, source }
        })
    }

    /// Ends it without asking the guest and removes its folder. Runs to its end once begun.
    pub async fn destroy(self: &Arc<Self>) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        let live = self.state.lock().live.clone();
        if let Some(live) = live {
            self.end_run(&live, 0).await?;
        }
        let group = self.context.hierarchy.group(&self.id);
        let jail = |source| Error::Jail { id: self.id.clone(), act: "removing its cgroup".to_owned(), source };
        group.remove().await.map_err(jail)?;
        match std::fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                let path = self.folder.clone();
                Err(Error::State { id: self.id.clone(), path, source })
            }
            _ => Ok(()),
        }
    }

    /// Returns when the run is over and taken in.
    pub(super) async fn end_run(&self, live: &Arc<Live>, grace_seconds: u32) -> Result<(), Error> {
        live.judge(EndCode::Stopped, "");
        let paused = self.state.lock().phase == Phase::Warm;
        self.enter(Phase::Stopping);
        let grace_seconds = grace_seconds.min(GRACE_SECONDS_MAX);
        let channel = live.channel.lock().clone();
        let asked = match channel {
            // A guest that stands still hears nothing.
            Some(channel) if grace_seconds > 0 && !paused => {
                channel.shutdown(Duration::from_secs(grace_seconds.into())).await.is_ok()
            }
            _ => false,
        };
        let gone = asked && live.process.ended_within(Duration::from_secs(grace_seconds.into()) + GRACE_MARGIN).await;
        if !gone {
            self.end_process(live).await?;
        }
        live.until_over().await;
        Ok(())
    }

    pub(super) async fn end_process(&self, live: &Live) -> Result<(), Error> {
        if let Some(monitor) = &live.monitor {
            // A monitor that does not answer is killed like one that does not go.
            let quit = tokio::time::timeout(QUIT_DEADLINE, monitor.quit()).await;
            if matches!(quit, Ok(Ok(()))) && live.process.ended_within(QUIT_DEADLINE).await {
                return Ok(());
            }
        }
        live.process.kill();
        if live.process.ended_within(KILL_DEADLINE).await {
            return Ok(());
        }
        Err(Error::Unkillable { id: self.id.clone(), pid: live.process.pid })
    }
}
