//! What is counted, and how Prometheus is told. Names are etcd's where they mean the same.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use store::Status as StoreStatus;
use tonic::{Code, Status};

use super::desk::Desk;
use super::grpc::Method;
use super::host::{Header, HostStatus};
use super::monitor::Seen;
use super::options::Options;
use crate::log::Measures;

const CODES: usize = 17;
const METHODS: usize = Method::ALL.len();

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more for as long as the answer lives.
    pub fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    pub fn up(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Held<'g>(&'g Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.up(-1);
    }
}

/// One more of something for as long as it lives.
pub struct Counted {
    desk: Arc<Desk>,
    gauge: fn(&Metrics) -> &Gauge,
}

impl Counted {
    pub fn new(desk: &Arc<Desk>, gauge: fn(&Metrics) -> &Gauge) -> Self {
        gauge(&desk.metrics).up(1);
        Self { desk: desk.clone(), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.desk.metrics).up(-1);
    }
}

pub struct Metrics {
    started: [Counter; METHODS],
    handled: [[Counter; CODES]; METHODS],
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub proposals_pending: Gauge,
    pub proposals_failed: Counter,
    pub ranges: Counter,
    pub puts: Counter,
    pub deletes: Counter,
    pub txns: Counter,
    pub watch_streams: Gauge,
    pub watches: Gauge,
    pub slow_watches: Gauge,
    pub events: Counter,
    pub health_successes: Counter,
    pub health_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: std::array::from_fn(|_| Counter::default()),
            handled: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            proposals_pending: Gauge::default(),
            proposals_failed: Counter::default(),
            ranges: Counter::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            txns: Counter::default(),
            watch_streams: Gauge::default(),
            watches: Gauge::default(),
            slow_watches: Gauge::default(),
            events: Counter::default(),
            health_successes: Counter::default(),
            health_failures: Counter::default(),
        }
    }
}

/// What is known elsewhere and told here.
pub struct Facts<'f> {
    pub header: Header,
    pub seen: Seen,
    pub host: Option<HostStatus>,
    pub store: Option<StoreStatus>,
    pub log: Option<Measures>,
    pub options: &'f Options,
}

impl Metrics {
    pub fn started(&self, method: Method) {
        self.started[method as usize].add(1);
    }

    pub fn handled(&self, method: Method, code: Code) {
        self.handled[method as usize][(code as usize).min(CODES - 1)].add(1);
    }

    pub fn finished<T>(&self, method: Method, result: &Result<T, Status>) {
        self.handled(method, result.as_ref().map_or_else(Status::code, |_| Code::Ok));
    }

    pub fn tell(&self, facts: &Facts<'_>) -> String {
        let mut page = Page::default();
        self.tell_server(facts, &mut page);
        self.tell_store(facts, &mut page);
        if let Some(log) = &facts.log {
            tell_log(log, &mut page);
        }
        self.tell_calls(&mut page);
        tell_process(&mut page);
        page.0
    }

    fn tell_server(&self, facts: &Facts<'_>, page: &mut Page) {
        let Facts { header, seen, host, options, .. } = facts;
        let flag = |flag: bool| u64::from(flag);
        page.gauge("etcd_server_has_leader", "Whether this member knows a leader.", flag(seen.leader.is_some()));
        let leads = seen.leader == Some(header.member_id);
        page.gauge("etcd_server_is_leader", "Whether this member is the leader.", flag(leads));
        page.gauge("etcd_server_is_learner", "Whether this member does not vote.", flag(seen.learner));
        let help = "Times that a new leader was seen.";
        page.counter("etcd_server_leader_changes_seen_total", help, seen.leader_changes);
        if let Some(host) = host {
            let help = "Place in the log up to which this member knows it agreed.";
            page.gauge("etcd_server_proposals_committed_total", help, host.log_index);
            let help = "Place in the log up to which this member has applied it.";
            page.gauge("etcd_server_proposals_applied_total", help, host.applied_index);
        }
        let help = "Changes on their way.";
        page.gauge("etcd_server_proposals_pending", help, self.proposals_pending.get());
        let help = "Changes that failed without having been refused.";
        page.counter("etcd_server_proposals_failed_total", help, self.proposals_failed.get());
        let help = "Size from which on nothing more is put; 0 for none.";
        page.gauge("etcd_server_quota_backend_bytes", help, options.quota_bytes.unwrap_or(0));
        page.head("etcd_server_id", "This member's id.", "gauge");
        page.line("etcd_server_id", &format!("server_id=\"{:x}\"", header.member_id), 1);
        page.head("etcd_server_version", "The version that clients are told.", "gauge");
        page.line("etcd_server_version", &format!("server_version=\"{}\"", options.version), 1);
        page.head("etcd_cluster_version", "The version of the API.", "gauge");
        page.line("etcd_cluster_version", &format!("cluster_version=\"{}\"", Options::CLUSTER_VERSION), 1);
        let (good, bad) = (self.health_successes.get(), self.health_failures.get());
        page.counter("etcd_server_health_success", "Checks of /health that found it well.", good);
        page.counter("etcd_server_health_failures", "Checks of /health that found it ill.", bad);
    }

    fn tell_store(&self, facts: &Facts<'_>, page: &mut Page) {
        if let Some(host) = &facts.host {
            let help = "What the database occupies.";
            page.gauge("etcd_mvcc_db_total_size_in_bytes", help, host.db_bytes);
            let help = "What of that is live data.";
            page.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, host.db_bytes_used);
        }
        if let Some(store) = &facts.store {
            page.gauge("etcd_debugging_mvcc_current_revision", "The newest revision.", store.revision.0);
            page.gauge("etcd_debugging_mvcc_compact_revision", "Reads below it are refused.", store.compacted.0);
        }
        page.counter("etcd_mvcc_range_total", "Ranges read.", self.ranges.get());
        page.counter("etcd_mvcc_put_total", "Puts.", self.puts.get());
        page.counter("etcd_mvcc_delete_total", "Deletes of ranges.", self.deletes.get());
        page.counter("etcd_mvcc_txn_total", "Transactions.", self.txns.get());
        page.gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches.", self.watch_streams.get());
        page.gauge("etcd_debugging_mvcc_watcher_total", "Watches.", self.watches.get());
        let help = "Watches that have not caught up.";
        page.gauge("etcd_debugging_mvcc_slow_watcher_total", help, self.slow_watches.get());
        page.counter("etcd_debugging_mvcc_events_total", "Answers with events sent.", self.events.get());
        let help = "Bytes of messages that clients sent.";
        page.counter("etcd_network_client_grpc_received_bytes_total", help, self.received_bytes.get());
        let help = "Bytes of messages that clients were sent.";
        page.counter("etcd_network_client_grpc_sent_bytes_total", help, self.sent_bytes.get());
    }

    fn tell_calls(&self, page: &mut Page) {
        let labels = |method: &Method| {
            let (shape, name, service) = (method.shape().name(), method.name(), method.service());
            format!("grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{shape}\"")
        };
        page.head("grpc_server_started_total", "Calls started.", "counter");
        for method in Method::ALL {
            page.line("grpc_server_started_total", &labels(method), self.started[*method as usize].get());
        }
        page.head("grpc_server_handled_total", "Calls completed, by code.", "counter");
        for method in Method::ALL {
            for (code, counter) in self.handled[*method as usize].iter().enumerate() {
                let count = counter.get();
                if count > 0 || code == 0 {
                    let code = code_name(Code::from(code as i32));
                    let labels = format!("grpc_code=\"{code}\",{}", labels(method));
                    page.line("grpc_server_handled_total", &labels, count);
                }
            }
        }
    }
}

/// As Go has it.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".into(),
        Code::Cancelled => "Canceled".into(),
        code => format!("{code:?}"),
    }
}

fn tell_log(log: &Measures, page: &mut Page) {
    let help = "How long syncs of the log took.";
    page.histogram("etcd_disk_wal_fsync_duration_seconds", help, &log.sync_seconds, log.sync_seconds_sum, log.syncs);
    let help = "Bytes that the log was written with.";
    page.counter("chainfire_log_written_bytes_total", help, log.written_bytes);
    page.counter("chainfire_log_entries_total", "Entries that the log was written with.", log.entries);
}

/// Facts of the process, from where the kernel tells them; those that are not told are left out.
fn tell_process(page: &mut Page) {
    const PAGE_BYTES: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    if let Some(pages) = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()) {
        page.gauge("process_resident_memory_bytes", "Resident memory.", pages * PAGE_BYTES);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open file descriptors.", open.count());
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    /// `buckets`: bounds and how many lie at or below each, ascending.
    fn histogram(&mut self, name: &str, help: &str, buckets: &[(f64, u64)], sum: f64, count: u64) {
        self.head(name, help, "histogram");
        for (bound, at_most) in buckets {
            self.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), *at_most);
        }
        self.line(&format!("{name}_bucket"), "le=\"+Inf\"", count);
        let _ = writeln!(self.0, "{name}_sum {sum}\n{name}_count {count}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        let _ = writeln!(self.0, "{name} {value}");
    }
}
