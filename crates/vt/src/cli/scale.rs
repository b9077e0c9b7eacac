use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use model::Code;
use serde_json::{Value, json};

use super::session::Session;
use super::{noun, status};
use crate::client::{Api, Item, Target};
use crate::failure::{EXIT_INTERRUPTED, Failure, Outcome};
use crate::output::receipt::Receipt;
use crate::output::steps::Steps;
use crate::output::text;

const INSTANCES_MAX: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Sets how many instances of a process run
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt scale web=3
  vt scale web=3 worker=2 -e staging
  vt scale web=0 --no-wait")]
pub struct ScaleArgs {
    /// PROCESS=COUNT, 0 to 100
    #[arg(required = true, value_name = "PROCESS=COUNT")]
    counts: Vec<String>,
    /// Come back once it is accepted
    #[arg(long)]
    no_wait: bool,
    /// The longest that it is watched
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = super::wait::seconds)]
    wait_timeout: u64,
}

pub async fn run(session: &Session, args: &ScaleArgs) -> Outcome {
    let counts = args.counts.iter().map(|text| count(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    known(session, &counts)?;
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let env = target.env().await?;
    let mut spec = if env.row.spec.is_object() { env.row.spec.clone() } else { json!({}) };
    for (process, count) in &counts {
        spec["scale"][process] = json!(count);
    }
    let changed = api.set(noun::noun_of("env")?, env.row.id.as_str(), &spec, env.row.version).await?;
    let code = if args.no_wait { 0 } else { follow(session, &api, &changed, &counts, args.wait_timeout).await? };
    // What the wait saw is newer than what the change was answered with.
    let changed = api.show(noun::noun_of("env")?, env.row.id.as_str()).await.unwrap_or(changed);
    let next = vec!["vt status".to_owned(), format!("vt why {}", changed.row.id)];
    let extra = vec![("scale", changed.row.spec.get("scale").cloned().unwrap_or(Value::Null))];
    Receipt { operation: "scaled", item: &changed, next, extra }.print(&session.out)?;
    Ok(code)
}

fn count(text: &str) -> Result<(String, u32), Failure> {
    let wrong =
        || Failure::usage(format!("`{text}` is not PROCESS=COUNT")).hint("write web=3, with 0 to 100 instances");
    let (process, count) = text.split_once('=').ok_or_else(wrong)?;
    let count: u32 = count.parse().ok().filter(|count| *count <= INSTANCES_MAX).ok_or_else(wrong)?;
    if process.is_empty() { Err(wrong()) } else { Ok((process.to_owned(), count)) }
}

/// Refuses a process that the manifest does not have, where the manifest is that of the app.
fn known(session: &Session, counts: &BTreeMap<String, u32>) -> Result<(), Failure> {
    let Ok(Some(manifest)) = session.settings.manifest_optional() else { return Ok(()) };
    if manifest.app.name.as_deref() != session.settings.get("app") {
        return Ok(());
    }
    let Some(process) = counts.keys().find(|process| !manifest.processes.contains_key(*process)) else { return Ok(()) };
    let names: Vec<&str> = manifest.processes.keys().map(String::as_str).collect();
    let hint = match model::manifest::nearest(process, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", names.join(", ")),
    };
    Err(Failure::usage(format!("the app has no process `{process}`")).hint(hint))
}

/// Watches until as many instances are ready as were asked for and no others are left.
async fn follow(session: &Session, api: &Api, env: &Item, counts: &BTreeMap<String, u32>, seconds: u64) -> Outcome {
    let mut steps = Steps::begin(&session.out);
    let mut told = String::new();
    loop {
        let view = status::read(api, env).await?;
        if view.live_release().is_none() && view.rolling().is_none() {
            session.out.note("nothing is deployed yet; the count holds from the first deploy on");
            return Ok(0);
        }
        let of = |process: &str, ready: bool| {
            let fits = |vm: &&Item| vm.row.spec["process"] == process && (!ready || vm.row.phase == "ready");
            view.instances.iter().filter(fits).count() as u32
        };
        let reached = counts.iter().all(|(process, count)| of(process, true) == *count && of(process, false) == *count);
        let blocker = view.blocker();
        let now = counts
            .iter()
            .map(|(process, count)| format!("{process} {}/{count} ready", of(process, true)))
            .collect::<Vec<_>>()
            .join(", ");
        let now = match &blocker {
            Some((name, reason)) if !reached => format!("{now}: {name}: {}", text::clean(&reason.message)),
            _ => now,
        };
        if now != told {
            steps.step(&now);
            told.clone_from(&now);
        }
        if reached {
            return Ok(0);
        }
        if let Some((name, reason)) =
            blocker.filter(|(_, reason)| reason.code == "unplaceable" || reason.code.starts_with("no_capacity"))
        {
            let mut failure = Failure::new(Code::Unplaceable, format!("no node can hold {name}"))
                .why(reason.message)
                .hint(reason.remedy);
            failure.error.reason = Some(reason.code);
            return Err(failure);
        }
        if steps.elapsed_ms() > seconds.saturating_mul(1000) {
            return Err(Failure::new(Code::DeadlineExceeded, format!("not scaled after {seconds} s"))
                .why(told)
                .hint("vt status; vt why"));
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {
                steps.step("no longer looking; the scaling goes on. vt status   looks again");
                return Ok(EXIT_INTERRUPTED);
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_are_process_and_number() {
        assert_eq!(count("web=3").unwrap(), ("web".to_owned(), 3));
        for bad in ["web", "web=", "=3", "web=101", "web=-1", "web=three"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}
