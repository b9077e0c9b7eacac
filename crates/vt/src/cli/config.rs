use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::session::Session;
use crate::failure::Outcome;
use crate::output::table::grid;

/// Which settings hold, and where each comes from
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt config show
  vt config show --origin
  vt config show --json | jq -r .api")]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows every setting. Flags win over VT_* variables, those over the manifest, that over the context
    #[command(before_help = "Examples:
  vt config show
  vt config show --origin
  vt config show --cloud    the cloud's own settings, asked over the API")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
    /// The settings of the cloud itself
    #[arg(long)]
    cloud: bool,
}

/// Never shown: it would end up in somebody's terminal log.
const HIDDEN: &str = "token";

pub async fn run(session: &Session, args: &ConfigArgs) -> Outcome {
    let Verb::Show(args) = &args.verb;
    if args.cloud {
        return cloud(session, args.origin).await;
    }
    let shown = |key: &str, value: &Option<String>| match value {
        Some(_) if key == HIDDEN => Some("(hidden)".to_owned()),
        value => value.clone(),
    };
    let mut object = Map::new();
    let mut origins = Map::new();
    let mut rows = Vec::new();
    for setting in &session.settings.list {
        let value = shown(setting.key, &setting.value);
        object.insert(setting.key.to_owned(), json!(value));
        origins.insert(setting.key.to_owned(), json!(setting.origin));
        rows.push(vec![setting.key.to_owned(), value.unwrap_or_else(|| "-".to_owned()), setting.origin.clone()]);
    }
    if args.origin {
        object.insert("origins".to_owned(), Value::Object(origins));
    }
    print(session, &Value::Object(object), rows, args.origin)
}

async fn cloud(session: &Session, origin: bool) -> Outcome {
    let answer = session.api()?.get("/v1/config", &[]).await?;
    let items = answer.get("items").unwrap_or(&answer).as_array().cloned().unwrap_or_default();
    let text = |item: &Value, key: &str| item[key].as_str().map_or_else(|| item[key].to_string(), str::to_owned);
    let rows = items.iter().map(|item| vec![text(item, "key"), text(item, "value"), text(item, "origin")]).collect();
    print(session, &json!({ "items": items, "next": null }), rows, origin)
}

fn print(session: &Session, value: &Value, mut rows: Vec<Vec<String>>, origin: bool) -> Outcome {
    session.out.value(value, || {
        if !origin {
            for row in &mut rows {
                row.truncate(2);
            }
        }
        let mut head = vec!["KEY".to_owned(), "VALUE".to_owned()];
        head.extend(origin.then(|| "ORIGIN".to_owned()));
        rows.insert(0, head);
        grid(rows)
    })?;
    Ok(0)
}
