use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde_json::Value;

use super::session::Session;
use super::{complete, events};
use crate::client::{Target, nouns};
use crate::failure::Outcome;
use crate::output::text;

/// Why something is in the state it is in: what led here, what blocks it, and what would mend it
///
/// Without a name: the env.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt why
  vt why web-1
  vt why deploy/d3 --json")]
pub struct WhyArgs {
    /// Name, KIND/NAME or id
    #[arg(value_name = "NAME|ID", add = ArgValueCompleter::new(complete::rows))]
    name: Option<String>,
}

pub async fn run(session: &Session, args: &WhyArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let (noun, item) = match &args.name {
        Some(name) => target.find(name).await?,
        None => (
            nouns::opening(model::Level::Env).ok_or_else(|| model::Error::internal("no env"))?,
            target.env().await?.clone(),
        ),
    };
    let answer = api.get(&format!("/v1/{}/{}/why", noun.plural, item.row.id), &[]).await?;
    session.out.value(&answer, || render(&answer, session.out.now_ms))?;
    Ok(0)
}

/// The answer for people: state, blockers, causes, history.
fn render(answer: &Value, now_ms: u64) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let row = &answer["row"];
    let word = |value: &Value| text::clean(value.as_str().unwrap_or_default());
    let settled = answer["settled"] == true;
    let state = if settled { "as wished" } else { "not as wished" };
    let _ = writeln!(out, "{} {} is {}, {state}", word(&row["kind"]), word(&row["name"]), word(&row["phase"]));
    let blockers = answer["blockers"].as_array().cloned().unwrap_or_default();
    for blocker in &blockers {
        let reason = &blocker["reason"];
        let since = reason["since_ms"]
            .as_u64()
            .filter(|since| *since > 0)
            .map(|since| format!(", for {}", text::when(since, now_ms)));
        let kind = if reason["transient"] == true { "waits" } else { "blocked" };
        let _ = writeln!(
            out,
            "\n{kind}: {} {} ({}{})",
            word(&blocker["kind"]),
            word(&blocker["name"]),
            word(&blocker["phase"]),
            since.unwrap_or_default()
        );
        let _ = writeln!(out, "  why:  {} ({})", word(&reason["message"]), word(&reason["code"]));
        let remedy = word(&reason["try"]);
        if !remedy.is_empty() {
            let _ = writeln!(out, "  try:  {remedy}");
        } else if reason["transient"] == true {
            let _ = writeln!(out, "  try:  nothing: the cloud is at it. vt wait {}", word(&blocker["id"]));
        }
        let _ = writeln!(out, "  docs: vt explain {}", word(&reason["code"]));
    }
    for (title, key) in [("what led here", "chain"), ("its own history", "history")] {
        let list = answer[key].as_array().cloned().unwrap_or_default();
        if !list.is_empty() {
            let _ = writeln!(out, "\n{title}:");
            for event in &list {
                let _ = write!(out, "  {}", events::line(event));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blockers_come_with_what_to_do() {
        let id = |prefix: &str, bits| model::Id::from_bits(prefix, bits).to_string();
        let event = json!({
            "id": id("ev", 1), "sequence": 12, "time_ms": 1_000, "actor": { "type": "user", "id": "tok" }, "scope": "",
            "request_id": id("req", 1), "kind": "deploy", "row": id("dep", 3), "version": 1, "type": "deploy.created",
            "schema_version": 1, "correlation": id("req", 1), "payload": { "change": "created", "name": "d3", "spec": {} },
        });
        let answer = json!({
            "row": { "kind": "deploy", "name": "d3", "phase": "rolling" }, "settled": false,
            "blockers": [
                { "id": id("vm", 1), "kind": "vm", "name": "web-2", "phase": "pending",
                  "reason": { "code": "image_pull_failed", "message": "the registry\u{1b}[2J refused", "try": "log in", "since_ms": 1_000, "transient": false } },
                { "id": id("vm", 2), "kind": "vm", "name": "web-1", "phase": "starting",
                  "reason": { "code": "booting", "message": "the guest boots", "try": "", "since_ms": 60_000, "transient": true } },
            ],
            "chain": [event], "history": [],
        });
        insta::assert_snapshot!(render(&answer, 61_000));
    }
}
