//! Machines that ran on while the engine was away.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Live, Machine};
use crate::jail::{self, Expected};
use crate::launch::{self, CONSOLE_SOCKET, MONITOR_SOCKET};
use crate::process::{self, Process};
use crate::qemu;
use crate::qmp::{self, RunState};
use crate::record::{self, Run};
use crate::saved;
use crate::seen::{End, EndCode, Phase};

/// A monitor that greets late is asked no more; the machine runs on without.
const MONITOR_DEADLINE: Duration = Duration::from_secs(5);

impl Machine {
    /// Takes the process of the record back, when it is there and all that it should be. Else the record says what
    /// became of it.
    pub async fn adopt(self: &Arc<Self>) {
        let Some(run) = self.state.lock().record.run.clone() else { return };
        match self.find(&run).await {
            Ok((process, monitor, events)) => {
                let console = launch::open(&self.folder, CONSOLE_SOCKET).ok();
                let live = Live::new(process, self.context.hierarchy.group(&self.id), monitor);
                {
                    let mut state = self.state.lock();
                    state.live = Some(live.clone());
                    state.phase = if state.record.paused { Phase::Warm } else { Phase::Running };
                }
                tracing::info!(id = %self.id, pid = run.pid, "a running machine was adopted");
                self.watch(live, None, None, events, console, None);
            }
            // It was saved to the last byte, or had not begun to go on from what was.
            Err(_) if self.state.lock().record.asleep.is_some() => {
                if let Err(error) = self.keep(|record| record.run = None) {
                    tracing::warn!(id = %self.id, %error, "the end of a machine was not written down");
                }
                self.state.lock().phase = Phase::Sleeping;
            }
            Err((code, detail)) => {
                tracing::info!(id = %self.id, code = code.as_str(), %detail, "a machine is gone");
                let wanted = self.state.lock().record.wanted;
                let code = if wanted { code } else { EndCode::Stopped };
                let end = End { code, detail, at_ms: self.context.clock.now_ms() };
                if let Err(error) = self.keep(|record| (record.run, record.end) = (None, Some(end))) {
                    tracing::warn!(id = %self.id, %error, "the end of a machine was not written down");
                }
                self.state.lock().phase = if wanted { Phase::Failed } else { Phase::Stopped };
            }
        }
        self.changed();
    }

    async fn find(&self, run: &Run) -> Result<Found, (EndCode, String)> {
        if run.host_boot_id != record::host_boot_id() {
            return Err((EndCode::HostRestarted, "the host was restarted".to_owned()));
        }
        let gone = |detail: &str| (EndCode::Vanished, detail.to_owned());
        let process = Process::open(run.pid).map_err(|_| gone("its process is gone"))?;
        let marked = process::arguments(run.pid).is_some_and(|arguments| arguments.contains(&run.mark));
        if process.started_ticks != run.started_ticks || !marked {
            return Err(gone("its process is gone and its number is another's"));
        }
        let (uid, memory_bytes) = {
            let state = self.state.lock();
            (state.record.spec.uid, state.record.spec.memory_bytes)
        };
        let group = self.context.hierarchy.group(&self.id);
        let expected =
            Expected { uid, group: &group, memory_bytes: qemu::memory_limit(run.accelerator, memory_bytes) & !4095 };
        if let Err(why) = jail::verify(run.pid, &expected) {
            process.kill();
            return Err((EndCode::StartFailed, format!("its jail does not hold: {why}")));
        }
        let connect = async {
            let socket = launch::open(&self.folder, MONITOR_SOCKET).map_err(qmp::Error::Socket)?;
            qmp::Client::connect(socket).await
        };
        if self.state.lock().record.asleep.is_some() {
            process.kill();
            process.ended().await;
            return Err((EndCode::Asleep, String::new()));
        }
        let Ok(Ok((monitor, events))) = timeout(MONITOR_DEADLINE, connect).await else {
            tracing::warn!(id = %self.id, "the monitor of a running machine does not answer");
            return Ok((process, None, None));
        };
        let paused = self.state.lock().record.paused;
        match monitor.status().await {
            Ok(RunState::Prelaunch | RunState::Incoming) => {
                process.kill();
                return Err((EndCode::StartFailed, "it was never let go".to_owned()));
            }
            Ok(RunState::Running) => self.state.lock().record.paused = false,
            // All of its state was written when the program ended: what is left is to make it durable.
            Ok(RunState::Saved) if self.finish_sleep(run).await => {
                process.kill();
                process.ended().await;
                return Err((EndCode::Asleep, String::new()));
            }
            // Halted to be saved, or to go on from what was, when the program ended that did it.
            Ok(RunState::Paused | RunState::Saved) if !paused => {
                if let Err(error) = monitor.cont().await {
                    process.kill();
                    return Err((EndCode::VmmFailed, format!("it does not go on: {error}")));
                }
                let _ = saved::use_up(&self.folder);
            }
            _ => {}
        }
        Ok((process, Some(monitor), Some(events)))
    }
}

type Found = (Process, Option<qmp::Client>, Option<tokio::sync::mpsc::Receiver<qmp::Event>>);
