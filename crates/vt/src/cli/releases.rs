use clap::Args;
use serde_json::{Value, json};

use super::session::Session;
use super::{noun, status};
use crate::client::Target;
use crate::failure::Outcome;
use crate::output::Column;

/// The app's releases, newest first, with the one that is live in the env
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt releases
  vt releases -e staging
  vt releases --json")]
pub struct ReleasesArgs {}

pub async fn run(session: &Session, _args: &ReleasesArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let scope = target.app().await?.row.inner_scope().to_string();
    let mut releases = api.list(noun::noun_of("release")?, &[("scope", scope.as_str())]).await?;
    releases.sort_by_key(|release| std::cmp::Reverse(number(&release.raw)));
    // An env that is not there yet runs nothing.
    let live = match target.env().await {
        Ok(env) => status::read(&api, env).await?.live_release(),
        Err(_) => None,
    };
    let items: Vec<Value> = releases
        .into_iter()
        .map(|release| {
            let mut raw = release.raw;
            raw["live"] = json!(live.as_deref() == raw["id"].as_str());
            raw
        })
        .collect();
    let columns = [
        ("RELEASE", "/name"),
        ("LIVE", "/live"),
        ("IMAGE", "/spec/image"),
        ("DIGEST", "/status/digest"),
        ("AGE", "/created_ms"),
        ("ID", "/id"),
    ];
    session.out.list(&items, &Value::Null, &columns.map(|(title, pointer)| Column::new(title, pointer)))?;
    Ok(0)
}

/// A release's number.
pub fn number(raw: &Value) -> u64 {
    raw.pointer("/spec/number").or_else(|| raw.pointer("/status/number")).and_then(Value::as_u64).unwrap_or_default()
}
