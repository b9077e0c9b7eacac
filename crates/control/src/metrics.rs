//! Counters in Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;
use reconcile::Table;

/// Requests by route and outcome. Routes are templates, so the number of series is bounded by the route table.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), Series>>,
}

#[derive(Debug, Default)]
struct Series {
    count: u64,
    time: Duration,
}

impl Metrics {
    pub fn request(&self, method: &str, route: &str, status: u16, time: Duration) {
        let mut requests = self.requests.lock();
        let series = requests.entry((method.to_owned(), route.to_owned(), status)).or_default();
        series.count += 1;
        series.time += time;
    }

    pub fn text(&self, table: &Table, uptime: Duration, version: &str) -> String {
        let mut out = String::new();
        let mut family = |name: &str, about: &str, form: &str, lines: &[String]| {
            let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} {form}");
            for line in lines {
                let _ = writeln!(out, "{line}");
            }
        };
        let (mut counts, mut seconds) = (Vec::new(), Vec::new());
        for ((method, route, status), series) in &*self.requests.lock() {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            counts.push(format!("vt_api_requests_total{{{labels}}} {}", series.count));
            seconds.push(format!("vt_api_request_seconds_total{{{labels}}} {:.6}", series.time.as_secs_f64()));
        }
        family("vt_api_requests_total", "Requests answered.", "counter", &counts);
        family("vt_api_request_seconds_total", "Time until the answer began.", "counter", &seconds);
        let mut phases: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for row in table.iter() {
            *phases.entry((&row.kind, &row.phase)).or_default() += 1;
        }
        let line = |((kind, phase), count): (&(&str, &str), &u64)| {
            format!("vt_rows{{kind=\"{}\",phase=\"{}\"}} {count}", escaped(kind), escaped(phase))
        };
        family("vt_rows", "Rows by kind and phase.", "gauge", &phases.iter().map(line).collect::<Vec<_>>());
        let quarantined = [format!("vt_rows_quarantined {}", table.quarantine.len())];
        family("vt_rows_quarantined", "Rows that cannot be read.", "gauge", &quarantined);
        family("vt_revision", "Revision of the view of rows.", "gauge", &[format!("vt_revision {}", table.revision)]);
        family("vt_uptime_seconds", "Since the start.", "gauge", &[format!("vt_uptime_seconds {}", uptime.as_secs())]);
        let build = [format!("vt_build_info{{version=\"{}\"}} 1", escaped(version))];
        family("vt_build_info", "Which program this is.", "gauge", &build);
        out
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
