use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use model::Code;
use serde_json::json;

use super::session::Session;
use super::{complete, noun};
use crate::client::{Api, Item, Target};
use crate::failure::{EXIT_INTERRUPTED, Failure, Outcome};
use crate::output::receipt::Receipt;
use crate::output::steps::Steps;
use crate::output::text;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Puts instances to sleep: their memory goes to the disk, their processes end
///
/// What they have in flight is answered first. A request at their route wakes them, and so does `vt wake`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt sleep                  all instances of the app
  vt sleep --vm web-1
  vt sleep --warm           they only stand still, and keep their memory")]
pub struct SleepArgs {
    /// This instance alone
    #[arg(long, value_name = "NAME|ID", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Stand still and keep the memory: waking takes some milliseconds
    #[arg(long)]
    warm: bool,
    #[command(flatten)]
    wait: WaitFlags,
}

/// Wakes instances: they go on where they were
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt wake                   all instances of the app
  vt wake --vm web-1
  vt wake --no-wait")]
pub struct WakeArgs {
    /// This instance alone
    #[arg(long, value_name = "NAME|ID", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    #[command(flatten)]
    wait: WaitFlags,
}

#[derive(Debug, Args)]
struct WaitFlags {
    /// Come back once it is accepted
    #[arg(long)]
    no_wait: bool,
    /// The longest that it is watched
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::wait::seconds)]
    wait_timeout: u64,
}

pub async fn sleep(session: &Session, args: &SleepArgs) -> Outcome {
    let (state, phase) = if args.warm { ("warm", "warm") } else { ("sleeping", "sleeping") };
    change(session, args.vm.as_deref(), &args.wait, state, phase).await
}

pub async fn wake(session: &Session, args: &WakeArgs) -> Outcome {
    change(session, args.vm.as_deref(), &args.wait, "running", "ready").await
}

async fn change(session: &Session, vm: Option<&str>, wait: &WaitFlags, state: &str, phase: &str) -> Outcome {
    let api = session.api()?;
    let vms = chosen(session, &api, vm).await?;
    let noun = noun::noun_of("vm")?;
    let mut changed = Vec::new();
    for vm in &vms {
        let spec = json!({ "release": vm.row.spec["release"], "process": vm.row.spec["process"], "state": state });
        changed.push(api.set(noun, vm.row.id.as_str(), &spec, vm.row.version).await?);
    }
    let code = if wait.no_wait { 0 } else { follow(session, &api, &changed, phase, wait.wait_timeout).await? };
    for vm in &changed {
        // What the wait saw is newer than what the change was answered with.
        let vm = api.show(noun, vm.row.id.as_str()).await?;
        let next = vec!["vt status".to_owned(), format!("vt why {}", vm.row.id)];
        let extra = vec![("began", vm.row.status["began"].clone())];
        Receipt { operation: "changed", item: &vm, next, extra }.print(&session.out)?;
    }
    Ok(code)
}

async fn chosen(session: &Session, api: &Api, vm: Option<&str>) -> Result<Vec<Item>, Failure> {
    let target = Target::new(api, &session.settings);
    let noun = noun::noun_of("vm")?;
    if let Some(name) = vm {
        return Ok(vec![target.find_of(noun, name).await?]);
    }
    let scope = target.env().await?.row.inner_scope().to_string();
    let mut vms = api.list(noun, &[("scope", scope.as_str())]).await?;
    vms.retain(|vm| !vm.row.deleting() && vm.row.phase != "failed");
    vms.sort_by(|a, b| (&a.row.name, &a.row.id).cmp(&(&b.row.name, &b.row.id)));
    if vms.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("{} has no instances", session.place())).hint("vt deploy"));
    }
    Ok(vms)
}

async fn follow(session: &Session, api: &Api, vms: &[Item], phase: &str, seconds: u64) -> Outcome {
    let noun = noun::noun_of("vm")?;
    let mut steps = Steps::begin(&session.out);
    let mut told = String::new();
    loop {
        let mut behind = None;
        for vm in vms {
            let now = api.show(noun, vm.row.id.as_str()).await?;
            if now.row.phase != phase || !now.row.current() {
                behind = Some(now);
                break;
            }
        }
        let Some(behind) = behind else { return Ok(0) };
        let why = behind.row.reason.as_ref().map_or(behind.row.phase.clone(), |reason| text::clean(&reason.message));
        let now = format!("{}: {why}", behind.row.name);
        if now != told {
            steps.step(&now);
            told.clone_from(&now);
        }
        if behind.row.phase == "failed" {
            return Err(Failure::new(Code::Failed, format!("{} failed", behind.row.name)).why(why).hint("vt why"));
        }
        if steps.elapsed_ms() > seconds.saturating_mul(1000) {
            return Err(Failure::new(Code::DeadlineExceeded, format!("not {phase} after {seconds} s"))
                .why(told)
                .hint("vt status; vt why"));
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {
                steps.step("no longer looking; it goes on. vt status   looks again");
                return Ok(EXIT_INTERRUPTED);
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
