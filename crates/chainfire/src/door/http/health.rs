//! `/health`, and `/livez` and `/readyz` with their checks.

use std::fmt::Write as _;
use std::time::Duration;

use etcd::proto::etcdserverpb::AlarmType;
use http::{Response, StatusCode};
use store::{Error, Range};

use super::text;
use crate::door::desk::Desk;
use crate::door::grpc::Reply;

/// A check that takes longer has failed.
const CHECK_MAX: Duration = Duration::from_secs(7);

/// The parameters of a query, in order; names and values as they stand there.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

async fn read(desk: &Desk, serializable: bool) -> Result<(), Error> {
    let range = Range::all().limit(1).keys_only().uncounted();
    let range = if serializable { range.serializable() } else { range };
    tokio::time::timeout(CHECK_MAX, desk.store.range(range)).await.unwrap_or(Err(Error::TimedOut))?;
    Ok(())
}

pub async fn health(desk: &Desk, query: &str) -> Response<Reply> {
    let excluded = |alarm: AlarmType| parameters(query).any(|pair| pair == ("exclude", alarm.as_str_name()));
    let serializable = parameters(query).any(|pair| pair == ("serializable", "true"));
    let reason = reason(desk, excluded, serializable).await;
    let (health, status, counter) = match &reason {
        None => ("true", StatusCode::OK, &desk.metrics.health_successes),
        Some(_) => ("false", StatusCode::SERVICE_UNAVAILABLE, &desk.metrics.health_failures),
    };
    counter.add(1);
    let mut body = serde_json::json!({ "health": health, "reason": reason.unwrap_or_default() }).to_string();
    if status != StatusCode::OK {
        body.push('\n');
    }
    text(status, body)
}

async fn reason(desk: &Desk, excluded: impl Fn(AlarmType) -> bool, serializable: bool) -> Option<String> {
    if let Some(alarm) = desk.view().alarms.iter().find(|alarm| !excluded(alarm.kind)) {
        return Some(format!("ALARM {}", alarm.kind.as_str_name()));
    }
    if !serializable && desk.host.status().await.is_ok_and(|status| status.leader.is_none()) {
        return Some("RAFT NO LEADER".into());
    }
    read(desk, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

const LIVE: &[&str] = &["serializable_read"];
const READY: &[&str] = &["data_corruption", "serializable_read", "linearizable_read", "non_learner"];

/// `path` is one of `/livez`, `/readyz`, or one of their checks: `/readyz/data_corruption`.
pub async fn checks(desk: &Desk, path: &str, query: &str) -> Option<Response<Reply>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let all = match parts.next() {
        Some("livez") => LIVE,
        Some("readyz") => READY,
        _ => return None,
    };
    let wanted: Vec<&str> = match parts.next() {
        Some(one) => all.iter().copied().filter(|check| *check == one).collect(),
        None => {
            let excluded = |check: &str| parameters(query).any(|pair| pair == ("exclude", check));
            all.iter().copied().filter(|check| !excluded(check)).collect()
        }
    };
    if wanted.is_empty() && path.contains("z/") {
        return None;
    }
    let (mut report, mut failed) = (String::new(), false);
    for name in wanted {
        match check(desk, name).await {
            Ok(()) => {
                let _ = writeln!(report, "[+]{name} ok");
            }
            Err(reason) => {
                failed = true;
                let _ = writeln!(report, "[-]{name} failed: {reason}");
            }
        }
    }
    if failed {
        return Some(text(StatusCode::SERVICE_UNAVAILABLE, report + "\n"));
    }
    let verbose = parameters(query).any(|(name, _)| name == "verbose");
    Some(text(StatusCode::OK, if verbose { report + "ok\n" } else { "ok\n".into() }))
}

async fn check(desk: &Desk, name: &str) -> Result<(), String> {
    match name {
        "data_corruption" if desk.view().rings(AlarmType::Corrupt) => Err("alarm activated: CORRUPT".into()),
        "serializable_read" => read(desk, true).await.map_err(|error| error.to_string()),
        "linearizable_read" => read(desk, false).await.map_err(|error| error.to_string()),
        "non_learner" if desk.seen().learner => Err("not supported for learner".into()),
        _ => Ok(()),
    }
}
