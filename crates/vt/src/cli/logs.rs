use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use model::Code;
use serde_json::Value;
use tokio::sync::mpsc;

use super::session::Session;
use super::{complete, noun};
use crate::client::{Api, Item, Target};
use crate::failure::{EXIT_INTERRUPTED, Failure, Outcome};
use crate::output::text;

/// Lines that may wait between the streams and the terminal.
const LINES_MAX: usize = 1024;
/// How often new instances are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Colours of the instances' names, in turn.
const COLORS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

/// What the instances print, merged
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt logs
  vt logs -f --tail 10
  vt logs --vm web-1 --json")]
pub struct LogsArgs {
    /// Go on with new lines, and with those of new instances
    #[arg(short, long)]
    follow: bool,
    /// How many of the latest lines of each instance to begin with, 0 to 10000
    #[arg(long, value_name = "COUNT", default_value = "200", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    tail: u16,
    /// Only this instance
    #[arg(long, value_name = "NAME|ID", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Begin each line with its time
    #[arg(long)]
    time: bool,
}

/// A line, or the end of one instance's lines.
type Message = Result<(String, Value), (String, Failure)>;

pub async fn run(session: &Session, args: &LogsArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let vms = match &args.vm {
        Some(name) => vec![target.find_of(noun::noun_of("vm")?, name).await?],
        None => instances(&api, &target).await?,
    };
    if vms.is_empty() && !args.follow {
        session.out.note(format!("{} has no instances; vt status", session.place()));
        return Ok(0);
    }
    if args.follow { follow(session, &api, &target, args, vms).await } else { show(session, &api, args, vms).await }
}

async fn instances(api: &Api, target: &Target<'_>) -> Result<Vec<Item>, Failure> {
    let scope = target.env().await?.row.inner_scope().to_string();
    let mut vms = api.list(noun::noun_of("vm")?, &[("scope", scope.as_str())]).await?;
    vms.sort_by(|a, b| (&a.row.name, &a.row.id).cmp(&(&b.row.name, &b.row.id)));
    Ok(vms)
}

/// Reads one instance's lines into the channel until they end.
fn read(api: &Api, vm: &Item, follow: bool, tail: u16, lines: mpsc::Sender<Message>) -> tokio::task::JoinHandle<()> {
    let (api, name, id) = (api.clone(), vm.row.name.clone(), vm.row.id.to_string());
    tokio::spawn(async move {
        let tail = tail.to_string();
        let work = async {
            let query = [("follow", if follow { "true" } else { "false" }), ("tail", tail.as_str())];
            let mut stream = api.lines(&format!("/v1/vms/{id}/logs"), &query).await?;
            while let Some(mut line) = stream.json().await? {
                if line.is_object() {
                    line["name"] = Value::String(name.clone());
                }
                if lines.send(Ok((name.clone(), line))).await.is_err() {
                    break;
                }
            }
            Ok::<(), Failure>(())
        };
        if let Err(failure) = work.await {
            // Nobody listens any more when the command has ended.
            let _ = lines.send(Err((name, failure))).await;
        }
    })
}

/// What is there, of all instances, in order of time.
async fn show(session: &Session, api: &Api, args: &LogsArgs, vms: Vec<Item>) -> Outcome {
    let (sender, mut receiver) = mpsc::channel(LINES_MAX);
    for vm in &vms {
        read(api, vm, false, args.tail, sender.clone());
    }
    drop(sender);
    let mut all: Vec<(String, Value)> = Vec::new();
    let mut failures = Vec::new();
    while let Some(message) = receiver.recv().await {
        match message {
            Ok(line) => all.push(line),
            Err(failure) => failures.push(failure),
        }
    }
    all.sort_by_key(|(name, line)| (line["time_ms"].as_u64(), name.clone(), line["sequence"].as_u64()));
    let shape = Shape::new(session, args, &vms);
    for (name, line) in &all {
        session.out.item(line, || shape.line(name, line))?;
    }
    told(failures, vms.len())
}

/// An instance that has no lines yet is no failure while others have some.
fn told(failures: Vec<(String, Failure)>, of: usize) -> Outcome {
    if failures.len() == of
        && let Some((_, failure)) = failures.into_iter().next()
    {
        return Err(failure);
    }
    Ok(0)
}

async fn follow(session: &Session, api: &Api, target: &Target<'_>, args: &LogsArgs, vms: Vec<Item>) -> Outcome {
    let (sender, mut receiver) = mpsc::channel(LINES_MAX);
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut shape = Shape::new(session, args, &vms);
    for vm in &vms {
        known.insert(vm.row.id.to_string());
        read(api, vm, true, args.tail, sender.clone());
    }
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(EXIT_INTERRUPTED),
            message = receiver.recv() => match message {
                Some(Ok((name, line))) => session.out.item(&line, || shape.line(&name, &line))?,
                Some(Err((name, failure))) => {
                    if args.vm.is_some() {
                        return Err(failure);
                    }
                    // It is tried again while the instance is there: one that still boots has no lines yet.
                    known.retain(|id| !vms.iter().any(|vm| vm.row.name == name && vm.row.id.as_str() == id));
                    if failure.error.code != Code::NotFound && failure.error.code != Code::Unavailable {
                        session.out.note(format!("{name}: {}", failure.error.message));
                    }
                }
                None => return Ok(0),
            },
            _ = look.tick(), if args.vm.is_none() => {
                for vm in instances(api, target).await? {
                    if known.insert(vm.row.id.to_string()) {
                        shape.add(&vm.row.name);
                        read(api, &vm, true, args.tail, sender.clone());
                    }
                }
            }
        }
    }
}

/// How a line looks.
struct Shape<'a> {
    session: &'a Session,
    names: Vec<String>,
    alone: bool,
    time: bool,
}

impl<'a> Shape<'a> {
    fn new(session: &'a Session, args: &LogsArgs, vms: &[Item]) -> Self {
        let names = vms.iter().map(|vm| vm.row.name.clone()).collect();
        Self { session, names, alone: args.vm.is_some(), time: args.time }
    }

    fn add(&mut self, name: &str) {
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
    }

    fn line(&self, name: &str, line: &Value) -> String {
        let mut out = String::new();
        if self.time {
            let _ = write!(out, "{}  ", text::time(line["time_ms"].as_u64().unwrap_or_default()));
        }
        if !self.alone {
            let width = self.names.iter().map(String::len).max().unwrap_or(0);
            let at = self.names.iter().position(|known| known == name).unwrap_or(0);
            let mark = if line["stream"] == "stderr" { '!' } else { '|' };
            out += &self.session.out.paint(COLORS[at % COLORS.len()], &format!("{name:<width$} {mark}"));
            out.push(' ');
        }
        out + &text::clean_log(line["line"].as_str().unwrap_or_default()) + "\n"
    }
}
