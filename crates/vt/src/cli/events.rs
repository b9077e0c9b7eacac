use clap::Args;
use model::Event;
use model::event::Change;
use serde_json::Value;

use super::session::Session;
use crate::client::{Api, Target};
use crate::failure::{EXIT_INTERRUPTED, Outcome};
use crate::output::text;

/// What happened: every accepted change, in order
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt events
  vt events -f --json
  vt events --all --limit 200")]
pub struct EventsArgs {
    /// Go on with new ones
    #[arg(short, long)]
    follow: bool,
    /// How many of the latest ones, 1 to 200
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Everything that the token sees
    #[arg(long)]
    all: bool,
}

pub async fn run(session: &Session, args: &EventsArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let scope = if args.all {
        String::new()
    } else if session.settings.get("app").is_none() {
        target.project().await?.to_string()
    } else if session.settings.explicit("env") {
        target.env().await?.row.inner_scope().to_string()
    } else {
        target.app().await?.row.inner_scope().to_string()
    };
    let limit = args.limit.to_string();
    let mut query = vec![("newest", limit.as_str())];
    if !scope.is_empty() {
        query.push(("scope", scope.as_str()));
    }
    let answer = api.get("/v1/events", &query).await?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    if args.follow {
        for item in &items {
            session.out.item(item, || line(item))?;
        }
        return follow(session, &api, &scope, &answer["next"]).await;
    }
    if session.out.human() {
        crate::output::write(&items.iter().map(line).collect::<String>())?;
        if items.is_empty() {
            session.out.note("nothing has happened here");
        }
    } else {
        session.out.list(&items, &Value::Null, &columns())?;
    }
    Ok(0)
}

fn columns() -> Vec<crate::output::Column> {
    [
        ("SEQUENCE", "/sequence"),
        ("TIME_MS", "/time_ms"),
        ("TYPE", "/type"),
        ("ROW", "/row"),
        ("ACTOR", "/actor/id"),
        ("ID", "/id"),
    ]
    .map(|(title, pointer)| crate::output::Column::new(title, pointer))
    .to_vec()
}

async fn follow(session: &Session, api: &Api, scope: &str, from: &Value) -> Outcome {
    let from = from.as_u64().map(|from| from.to_string());
    let mut query = Vec::new();
    if !scope.is_empty() {
        query.push(("scope", scope));
    }
    if let Some(from) = &from {
        query.push(("from", from.as_str()));
    }
    let mut events = api.events("/v1/events/watch", &query).await?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(EXIT_INTERRUPTED),
            next = events.next() => match next? {
                Some(sent) => session.out.item(&sent.data, || line(&sent.data))?,
                None => return Ok(0),
            },
        }
    }
}

/// One event in one line.
pub fn line(raw: &Value) -> String {
    let Ok(event) = serde_json::from_value::<Event>(raw.clone()) else { return format!("{raw}\n") };
    let detail = match &event.payload {
        Change::Created { name, .. } => name.clone(),
        Change::SpecSet { .. } | Change::DeleteRequested | Change::Deleted => String::new(),
        Change::Assigned { node } => format!("to {node}"),
        Change::Observed { phase, reason, .. } => match reason {
            Some(reason) => format!("{phase}: {} ({})", reason.message, reason.code),
            None => phase.clone(),
        },
    };
    let line = format!(
        "{}  {:>6}  {:<20} {}  {}",
        text::time(event.time_ms),
        event.sequence,
        event.event_type,
        event.row,
        detail
    );
    format!("{}\n", text::clean(line.trim_end()))
}
