//! Why a run ended, from all that is known about it. Pure.

use std::process::ExitStatus;

use crate::console::panic_line;
use crate::launch::ending;
use crate::seen::EndCode;

/// What is known when a process is gone.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Why the engine ended it itself.
    pub verdict: Option<(EndCode, String)>,
    /// Kills in its cgroup for want of memory.
    pub oom_kills: u64,
    /// The monitor's last word: by the guest's own doing or not, and its reason.
    pub shutdown: Option<(bool, String)>,
    pub panicked: bool,
    /// `None` for a process that was adopted: its status went to someone else.
    pub status: Option<ExitStatus>,
    pub complaints: String,
    /// The last of the guest's console.
    pub console: String,
}

/// The most certain cause first: what the engine did itself, then the kernel's word, the monitor's, the status.
pub(super) fn judge(evidence: &Evidence) -> (EndCode, String) {
    if let Some((code, detail)) = &evidence.verdict {
        return (*code, detail.clone());
    }
    if evidence.oom_kills > 0 {
        let detail = "its process was killed for exceeding the machine's memory and the monitor's share".to_owned();
        return (EndCode::OomKilled, detail);
    }
    let panic = panic_line(&evidence.console);
    if let (Some((true, _)), Some(line)) = (&evidence.shutdown, panic) {
        return (EndCode::GuestPanicked, line.to_owned());
    }
    if evidence.panicked {
        return (EndCode::GuestPanicked, String::new());
    }
    if let Some((true, reason)) = &evidence.shutdown {
        // The monitor is told not to reboot, so a guest's reboot ends it too.
        let detail = if reason == "guest-reset" { "the guest rebooted itself" } else { "the guest powered itself off" };
        return (EndCode::GuestPoweredOff, detail.to_owned());
    }
    if let Some((false, reason)) = &evidence.shutdown {
        return (EndCode::VmmKilled, format!("its monitor was told to end from outside ({reason})"));
    }
    use std::os::unix::process::ExitStatusExt;
    match evidence.status {
        Some(status) if status.signal().is_some() => {
            (EndCode::VmmKilled, format!("its process was killed from outside{}", ending(Some(status))))
        }
        Some(status) => {
            let said = if evidence.complaints.is_empty() { "without a word" } else { &evidence.complaints };
            (EndCode::VmmFailed, format!("its process ended{}: {said}", ending(Some(status))))
        }
        None => (EndCode::VmmKilled, "its process ended without a word from its monitor".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_most_certain_cause_is_named() {
        let killed = Some(ExitStatus::from_raw(9));
        let clean = Some(ExitStatus::from_raw(0));
        let failed = Some(ExitStatus::from_raw(1 << 8));
        let shutdown = |guest, reason: &str| Some((guest, reason.to_owned()));
        let panic = "[ 1.2] Kernel panic - not syncing: Attempted to kill init!\n".to_owned();
        let cases = [
            (Evidence { status: killed, ..Evidence::default() }, EndCode::VmmKilled),
            (Evidence { status: killed, oom_kills: 1, ..Evidence::default() }, EndCode::OomKilled),
            (
                Evidence { status: failed, complaints: "no such device".to_owned(), ..Evidence::default() },
                EndCode::VmmFailed,
            ),
            (
                Evidence { status: clean, shutdown: shutdown(true, "guest-shutdown"), ..Evidence::default() },
                EndCode::GuestPoweredOff,
            ),
            (
                Evidence { status: clean, shutdown: shutdown(true, "guest-reset"), ..Evidence::default() },
                EndCode::GuestPoweredOff,
            ),
            (
                Evidence {
                    status: clean,
                    shutdown: shutdown(true, "guest-reset"),
                    console: panic,
                    ..Evidence::default()
                },
                EndCode::GuestPanicked,
            ),
            (
                Evidence { status: clean, shutdown: shutdown(false, "host-signal"), ..Evidence::default() },
                EndCode::VmmKilled,
            ),
            (Evidence { status: clean, panicked: true, ..Evidence::default() }, EndCode::GuestPanicked),
            (Evidence::default(), EndCode::VmmKilled),
            (
                Evidence {
                    verdict: Some((EndCode::Stopped, String::new())),
                    oom_kills: 1,
                    status: killed,
                    ..Evidence::default()
                },
                EndCode::Stopped,
            ),
        ];
        for (evidence, code) in cases {
            assert_eq!(judge(&evidence).0, code, "{evidence:?}");
        }
        let evidence = Evidence { status: failed, complaints: "no such device".to_owned(), ..Evidence::default() };
        assert_eq!(judge(&evidence).1, "its process ended (exit code 1): no such device");
    }
}
