//! The task beside each run: it hears the monitor and takes in the end.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::end::{Evidence, judge};
use super::{Live, Machine, SCRATCH_FILE};
use crate::seen::{End, EndCode, Phase};
use crate::{console, launch, qmp, saved};

/// A guest that has not reported by then will not: two minutes are ten slow boots under emulation.
const BOOT_DEADLINE: Duration = Duration::from_mins(2);
/// What the monitor wrote just before its end is still on its way.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Looked through for a panic and quoted when a boot fails, in bytes.
const CONSOLE_TAIL_BYTES: usize = 8 << 10;

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Machine {
    /// Starts the tasks of one run. They end with its process.
    pub(super) fn watch(
        self: &Arc<Self>,
        live: Arc<Live>,
        child: Option<Child>,
        complaints: Option<OwnedFd>,
        events: Option<mpsc::Receiver<qmp::Event>>,
        console: Option<UnixStream>,
        guest: Option<UnixStream>,
    ) {
        let adopted = child.is_none();
        let recorder = console.map(|socket| {
            let folder = self.folder.clone();
            tokio::spawn(async move {
                if let Err(error) = console::record(&folder, socket).await {
                    tracing::debug!(%error, "a console could not be recorded on");
                }
            })
        });
        let complaints = complaints.map(|pipe| tokio::spawn(launch::complaints(pipe)));
        let link = tokio::spawn(self.clone().guest_link(live.clone(), adopted, guest));
        let machine = self.clone();
        let run = live.clone();
        let watch = tokio::spawn(async move {
            // Dropped with this task, they end with it.
            let mut link = AbortOnDrop(link);
            let mut recorder = recorder.map(AbortOnDrop);
            let mut evidence = machine.listen(&live, events, adopted).await;
            // What the workload printed last is still on its way.
            let _ = tokio::time::timeout(LAST_WORDS, &mut link.0).await;
            drop(link);
            if let Some(mut child) = child {
                // It has ended: this only collects its status.
                evidence.status = child.wait().ok();
            }
            if let Some(complaints) = complaints {
                evidence.complaints =
                    tokio::time::timeout(LAST_WORDS, complaints).await.ok().and_then(Result::ok).unwrap_or_default();
            }
            if let Some(recorder) = &mut recorder {
                let _ = tokio::time::timeout(LAST_WORDS, &mut recorder.0).await;
            }
            evidence.console = console::tail(&machine.folder, CONSOLE_TAIL_BYTES).unwrap_or_default();
            evidence.oom_kills = live.group.oom_kills();
            evidence.verdict.clone_from(&live.verdict.lock());
            machine.take_in(&live, &evidence).await;
        });
        run.tasks.lock().push(watch);
    }

    /// Hears the monitor until the process ends.
    async fn listen(
        &self,
        live: &Arc<Live>,
        mut events: Option<mpsc::Receiver<qmp::Event>>,
        adopted: bool,
    ) -> Evidence {
        let mut evidence = Evidence::default();
        let deadline = tokio::time::sleep(BOOT_DEADLINE);
        tokio::pin!(deadline);
        // One that was found running has proven that it boots, however little it says to this program.
        let mut booting = !adopted;
        loop {
            let monitored = events.is_some();
            let event = async {
                match &mut events {
                    Some(events) => events.recv().await,
                    None => std::future::pending().await,
                }
            };
            // The socket may stay open for a moment longer than the process: what lies in it is still heard.
            let ended = async {
                live.process.ended().await;
                if monitored {
                    tokio::time::sleep(LAST_WORDS).await;
                }
            };
            tokio::select! {
                // Events first: the last ones lie in the queue when the process is gone.
                biased;
                event = event => match event {
                    Some(qmp::Event::Shutdown { guest, reason }) => evidence.shutdown = Some((guest, reason)),
                    Some(qmp::Event::GuestPanicked { .. }) => evidence.panicked = true,
                    Some(event) => tracing::debug!(id = %self.id, ?event, "the monitor tells"),
                    None => events = None,
                },
                () = ended => return evidence,
                () = &mut deadline, if booting => {
                    booting = false;
                    if self.state.lock().guest.is_none() {
                        let console = console::tail(&self.folder, 512).unwrap_or_default();
                        let last = console.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
                        let detail = format!("the guest did not report within {} s; its console ends with: {last}", BOOT_DEADLINE.as_secs());
                        live.judge(EndCode::BootTimeout, detail);
                        live.process.kill();
                    }
                }
            }
        }
    }

    async fn take_in(&self, live: &Arc<Live>, evidence: &Evidence) {
        let (code, detail) = judge(evidence);
        if let Err(error) = live.group.remove().await {
            tracing::warn!(id = %self.id, %error, "a cgroup could not be removed");
        }
        let asleep = code == EndCode::Asleep;
        if !asleep {
            // The next start makes new ones; what was in these is nobody's any more.
            let _ = std::fs::remove_file(self.folder.join(SCRATCH_FILE));
            let _ = saved::discard(&self.folder);
        }
        let end = End { code, detail, at_ms: self.context.clock.now_ms() };
        tracing::info!(id = %self.id, code = code.as_str(), detail = %end.detail, "a machine ended");
        let kept = self.keep(|record| {
            record.run = None;
            record.paused = false;
            record.end = Some(end);
        });
        if let Err(error) = kept {
            // The next look at the process finds it gone; only the reason is lost.
            tracing::warn!(id = %self.id, %error, "the end of a machine was not written down");
        }
        {
            let mut state = self.state.lock();
            state.live = None;
            if let Some(seen) = &mut state.guest {
                seen.guest.connected = false;
            }
            state.phase = match code {
                EndCode::Asleep => Phase::Sleeping,
                EndCode::Stopped => Phase::Stopped,
                _ => Phase::Failed,
            };
        }
        live.over.send_replace(true);
        self.changed();
    }
}
