//! Is the workload well? A thread probes, pure counters decide, only transitions are told.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use model::guest::{Config, Health, HealthKind};

use crate::{clock, console};

/// Until the first success: soon at first, then less often, for a guest under emulation has one slow core.
const FIRST_PROBE_MS: u64 = 25;
const FIRST_PROBE_SLOW_MS: u64 = 250;
const FIRST_PROBE_FAST_FOR_MS: u64 = 10_000;
/// Before that nobody asks why it does not answer, and finding out costs as much as the probe.
const DIAGNOSE_AFTER_MS: u64 = 2_000;
/// Bytes read of an answer; the status line comes first.
const ANSWER_MAX: usize = 4096;
/// How often a sleeping probe looks whether its run is over.
const STOP_POLL_MS: u64 = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub at_ms: u64,
    /// The run of the workload it belongs to.
    pub run: u64,
    pub result: Result<(), String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Ready,
    Unready(String),
}

/// Counts results in a row.
#[derive(Debug)]
pub struct Tracker {
    started_ms: u64,
    grace_ms: u64,
    interval_ms: u64,
    success_threshold: u32,
    failure_threshold: u32,
    successes: u32,
    failures: u32,
    counted_ms: u64,
    told: Option<bool>,
}

impl Tracker {
    pub fn new(health: &Health, started_ms: u64) -> Self {
        Self {
            started_ms,
            grace_ms: u64::from(health.grace_period_seconds) * 1000,
            interval_ms: u64::from(health.interval_seconds) * 1000,
            success_threshold: health.success_threshold.max(1),
            failure_threshold: health.failure_threshold.max(1),
            successes: 0,
            failures: 0,
            counted_ms: started_ms,
            told: None,
        }
    }

    /// What this result changes, if anything. Early probes come faster than the interval; a failure is counted once
    /// an interval at most, and not within the grace period unless it had been ready before.
    pub fn take(&mut self, at_ms: u64, result: Result<(), String>) -> Option<Change> {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.successes >= self.success_threshold && self.told != Some(true) {
                    self.told = Some(true);
                    return Some(Change::Ready);
                }
            }
            Err(detail) => {
                self.successes = 0;
                let graced = self.told != Some(true) && at_ms < self.started_ms + self.grace_ms;
                // Probes at the interval's own pace arrive a little early or late.
                let soon = self.told != Some(true) && at_ms < self.counted_ms + self.interval_ms * 9 / 10;
                if graced || soon {
                    return None;
                }
                self.counted_ms = at_ms;
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.failure_threshold && self.told != Some(false) {
                    self.told = Some(false);
                    return Some(Change::Unready(detail));
                }
            }
        }
        None
    }
}

/// Where a probe goes: the machine's own addresses, as the network sees it; loopback only without a network.
pub fn addresses(config: &Config) -> Vec<IpAddr> {
    let network = config.network.as_ref();
    let v4 = network.and_then(|network| network.v4.as_ref()).map(|v4| IpAddr::V4(v4.address));
    let v6 = network.and_then(|network| network.v6.as_ref()).map(|v6| IpAddr::V6(v6.address));
    let own: Vec<_> = [v4, v6].into_iter().flatten().collect();
    if own.is_empty() { vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] } else { own }
}

/// A probing thread for one run of the workload; it ends soon after this value is dropped.
pub struct Prober(Arc<AtomicBool>);

impl Drop for Prober {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `wake` is an eventfd that is written after each result.
pub fn start(
    health: Health,
    addresses: Vec<IpAddr>,
    run: u64,
    results: SyncSender<Probe>,
    wake: Arc<OwnedFd>,
) -> Prober {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let body = move || {
        let started = clock::monotonic_ms();
        let mut passed = false;
        while !stopped.load(Ordering::Relaxed) {
            let diagnose = clock::monotonic_ms() - started >= DIAGNOSE_AFTER_MS;
            let result = probe(&health, &addresses, diagnose);
            passed |= result.is_ok();
            let at_ms = clock::monotonic_ms();
            // A full queue means that init is busy; the next result will do.
            if results.try_send(Probe { at_ms, run, result }).is_ok() {
                let _ = rustix::io::write(&*wake, &1u64.to_ne_bytes());
            }
            let mut left = match passed {
                true => u64::from(health.interval_seconds.max(1)) * 1000,
                false if at_ms - started < FIRST_PROBE_FAST_FOR_MS => FIRST_PROBE_MS,
                false => FIRST_PROBE_SLOW_MS,
            };
            while left > 0 && !stopped.load(Ordering::Relaxed) {
                let step = left.min(STOP_POLL_MS);
                clock::nap(step);
                left -= step;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("health".into()).stack_size(128 * 1024).spawn(body) {
        console::error(&format!("start the health probe: {error}"));
    }
    Prober(stop)
}

/// Passes when any of the addresses does. `diagnose`: find out more for the error's text.
pub fn probe(health: &Health, addresses: &[IpAddr], diagnose: bool) -> Result<(), String> {
    let timeout = Duration::from_secs(u64::from(health.timeout_seconds.max(1)));
    let mut detail = String::new();
    for address in addresses {
        match probe_one(health, SocketAddr::new(*address, health.port), timeout) {
            Ok(()) => return Ok(()),
            Err(error) => {
                let _ = write!(detail, "{}{error}", if detail.is_empty() { "" } else { "; " });
            }
        }
    }
    let on_loopback = diagnose
        && !addresses.iter().any(IpAddr::is_loopback)
        && [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].iter().any(|loopback| {
            TcpStream::connect_timeout(&SocketAddr::new(*loopback, health.port), Duration::from_millis(100)).is_ok()
        });
    if on_loopback {
        let _ = write!(detail, " (it listens on loopback only; let it listen on all addresses)");
    }
    Err(detail)
}

fn probe_one(health: &Health, to: SocketAddr, timeout: Duration) -> Result<(), String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("nothing listens on {to}"),
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => {
            format!("{to} did not answer within {} s", timeout.as_secs())
        }
        _ => format!("{to}: {error}"),
    };
    let mut stream = TcpStream::connect_timeout(&to, timeout).map_err(failed)?;
    if health.kind == HealthKind::Tcp {
        return Ok(());
    }
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let path = health.path.as_deref().unwrap_or("/");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: vt-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let deadline = clock::monotonic_ms() + timeout.as_millis() as u64;
    let mut answer = Vec::new();
    let mut chunk = [0u8; 512];
    while answer.len() < ANSWER_MAX && !answer.contains(&b'\n') {
        // A server that sends a byte a second must not hold the probe.
        if clock::monotonic_ms() > deadline {
            return Err(format!("{to} did not answer within {} s", timeout.as_secs()));
        }
        match stream.read(&mut chunk).map_err(failed)? {
            0 => break,
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("{to}{path} answered {code}")),
        None => Err(format!("{to} does not speak HTTP")),
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn health(kind: HealthKind, port: u16) -> Health {
        Health {
            kind,
            port,
            path: Some("/ok".into()),
            interval_seconds: 10,
            timeout_seconds: 1,
            grace_period_seconds: 5,
            success_threshold: 2,
            failure_threshold: 3,
        }
    }

    fn serve(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0u8; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        });
        port
    }

    #[test]
    fn only_transitions_are_told() {
        let mut tracker = Tracker::new(&health(HealthKind::Tcp, 1), 1000);
        let bad = || Err("refused".to_owned());
        // In grace, then one failure an interval at most, three in a row.
        assert_eq!(tracker.take(1050, bad()), None);
        assert_eq!(tracker.take(5999, bad()), None);
        for at in [11_000, 11_050, 20_000, 20_050] {
            assert_eq!(tracker.take(at, bad()), None, "{at}");
        }
        assert_eq!(tracker.take(30_000, bad()), Some(Change::Unready("refused".into())));
        assert_eq!(tracker.take(40_000, bad()), None);
        // Two successes in a row.
        assert_eq!(tracker.take(41_000, Ok(())), None);
        assert_eq!(tracker.take(42_000, bad()), None);
        assert_eq!(tracker.take(43_000, Ok(())), None);
        assert_eq!(tracker.take(44_000, Ok(())), Some(Change::Ready));
        assert_eq!(tracker.take(45_000, Ok(())), None);
        // Once ready, each failed probe counts.
        assert_eq!(tracker.take(46_000, bad()), None);
        assert_eq!(tracker.take(46_100, bad()), None);
        assert_eq!(tracker.take(46_200, bad()), Some(Change::Unready("refused".into())));
    }

    #[test]
    fn http_answers_are_judged_by_their_status() {
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        for (answer, passes) in [
            (b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), true),
            (b"HTTP/1.0 302 Found\r\n\r\n", true),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", false),
            (b"HTTP/1.1 500\r\n\r\n", false),
            (b"SSH-2.0-OpenSSH\r\n", false),
            (b"", false),
        ] {
            let port = serve(answer);
            assert_eq!(probe(&health(HealthKind::Http, port), &here, true).is_ok(), passes, "{answer:?}");
        }
        let port = serve(b"");
        assert_eq!(probe(&health(HealthKind::Tcp, port), &here, true), Ok(()));
    }

    #[test]
    fn a_closed_port_is_named() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = probe(&health(HealthKind::Tcp, closed), &[IpAddr::V4(Ipv4Addr::LOCALHOST)], true).unwrap_err();
        assert_eq!(error, format!("nothing listens on 127.0.0.1:{closed}"));
    }
}
