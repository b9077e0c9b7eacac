//! Watching a deploy to its end: one line for each thing that changes, with the time and the current blocker.
//!
//! Watches wake the loop; what is shown is read anew each time, because progress is never stored and so never
//! announced. Where a watch is refused, the timer alone carries on.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Code, Error};

use super::noun::noun_of;
use crate::client::stream::Events;
use crate::client::{Api, Item};
use crate::failure::{EXIT_INTERRUPTED, Failure};
use crate::output::steps::Steps;
use crate::output::text;

/// How often it is looked at when nothing is announced.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Announcements that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(40);

/// How it ended.
#[derive(Debug)]
pub enum Verdict {
    Live(Box<Item>),
    /// Ctrl-C: the deploy goes on.
    Detached(u8),
}

/// Follows `deploy` for at most `seconds`.
pub async fn follow(api: &Api, deploy: &Item, steps: &mut Steps<'_>, seconds: u64) -> Result<Verdict, Failure> {
    let deploys = noun_of("deploy")?;
    let vms = noun_of("vm")?;
    let id = deploy.row.id.clone();
    let scope = deploy.row.scope.to_string();
    let query = [("scope", scope.as_str())];
    let mut watches =
        [api.events("/v1/deploys/watch", &query).await.ok(), api.events("/v1/vms/watch", &query).await.ok()];
    let mut shown = Shown::default();
    loop {
        let item = api.show(deploys, id.as_str()).await?;
        let instances = api.list(vms, &[("scope", scope.as_str()), ("owner", id.as_str())]).await?;
        shown.update(&item, &instances, steps);
        match item.row.phase.as_str() {
            "live" if item.row.current() => return Ok(Verdict::Live(Box::new(item))),
            "failed" => return Err(failed(&item, &instances)),
            "superseded" => {
                return Err(Failure::new(
                    Code::Conflict,
                    format!("deploy {} was overtaken by a newer one", item.row.name),
                )
                .hint("vt status   shows what runs now"));
            }
            _ => {}
        }
        if steps.elapsed_ms() > seconds.saturating_mul(1000) {
            return Err(late(&item, &instances, seconds));
        }
        let [first, second] = &mut watches;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {
                steps.step(&format!("no longer looking; deploy {} goes on", item.row.name));
                steps.step(&format!("vt wait {id}   looks again; vt rollback   takes it back"));
                return Ok(Verdict::Detached(EXIT_INTERRUPTED));
            }
            () = announced(first) => tokio::time::sleep(SETTLE).await,
            () = announced(second) => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Waits for the next announcement; for ever where there is no watch.
async fn announced(watch: &mut Option<Events>) {
    if let Some(events) = watch {
        match events.next().await {
            Ok(Some(_)) => return,
            // The timer goes on without it.
            Ok(None) | Err(_) => *watch = None,
        }
    }
    std::future::pending::<()>().await;
}

/// What was said last of each row, so that only changes are said.
#[derive(Debug, Default)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    fn update(&mut self, deploy: &Item, instances: &[Item], steps: &mut Steps<'_>) {
        let mut moving = Vec::new();
        for item in instances.iter().chain([deploy]) {
            let line = line(item);
            if self.0.get(item.row.id.as_str()) != Some(&line) {
                steps.step(&format!("{} {}  {line}", item.row.kind, text::clean(&item.row.name)));
                self.0.insert(item.row.id.to_string(), line);
            }
            if let Some(progress) = item.progress() {
                moving.push(format!("{}  {}", item.row.name, progress.render()));
            }
        }
        if moving.is_empty() { steps.clear() } else { steps.draw(&moving.join("   ")) }
    }
}

/// The row in one line: its phase, and what it waits for.
fn line(item: &Item) -> String {
    let row = &item.row;
    let ready = match (item.status_number("ready"), item.status_number("desired")) {
        (Some(ready), Some(desired)) => format!(" {ready}/{desired} ready"),
        _ => String::new(),
    };
    match &row.reason {
        // A deploy that is under way waits for its instances, which speak for themselves.
        Some(reason) if reason.transient && row.kind == "deploy" => format!("{}{ready}", row.phase),
        Some(reason) => format!("{}{ready}: {}", row.phase, text::clean(&reason.message)),
        None => format!("{}{ready}", row.phase),
    }
}

/// The fault that stands in the way: an instance's before the deploy's own, which only counts them.
fn blocker<'a>(deploy: &'a Item, instances: &'a [Item]) -> Option<(&'a Item, &'a model::Reason)> {
    let reasons = || instances.iter().chain([deploy]).filter_map(|item| Some((item, item.row.reason.as_ref()?)));
    reasons().find(|(_, reason)| !reason.transient).or_else(|| reasons().next())
}

fn failed(deploy: &Item, instances: &[Item]) -> Failure {
    let error = Error::new(Code::Failed, format!("deploy {} failed", deploy.row.name));
    let own = deploy.row.reason.as_ref();
    let Some((at, reason)) = own.map(|reason| (deploy, reason)).or_else(|| blocker(deploy, instances)) else {
        return Failure::from(error.hint(format!("vt why {}", deploy.row.id)));
    };
    let why = if at.row.id == deploy.row.id {
        reason.message.clone()
    } else {
        format!("{}: {}", at.row.name, reason.message)
    };
    let hint = if reason.remedy.is_empty() { format!("vt why {}", deploy.row.id) } else { reason.remedy.clone() };
    Failure::from(error.reason(reason.code.clone()).why(text::clean(&why)).hint(text::clean(&hint)))
}

fn late(deploy: &Item, instances: &[Item], seconds: u64) -> Failure {
    let failure = Failure::new(
        Code::DeadlineExceeded,
        format!("deploy {} is still {} after {seconds} s", deploy.row.name, deploy.row.phase),
    );
    let why =
        blocker(deploy, instances).map(|(at, reason)| format!("{}: {}", at.row.name, text::clean(&reason.message)));
    failure
        .why(why.unwrap_or_default())
        .hint(format!("vt wait {}   goes on waiting; vt why {}   says what it waits for", deploy.row.id, deploy.row.id))
}
