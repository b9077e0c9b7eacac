use clap::{Args, Subcommand};

use super::session::Session;
use crate::failure::Outcome;

/// What only the cloud's owner does
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt admin replay
  vt admin replay --json
  vt admin replay --context lab")]
pub struct AdminArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Folds the whole event log again and compares it with the rows; changes nothing
    ///
    /// Ends with 1 when a row differs from its events.
    #[command(before_help = "Examples:
  vt admin replay
  vt admin replay --json
  vt admin replay --format yaml")]
    Replay,
}

pub async fn run(session: &Session, args: &AdminArgs) -> Outcome {
    let Verb::Replay = args.verb;
    let answer = session.api()?.post("/v1/admin/replay", &serde_json::json!({})).await?;
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let (differences, quarantined) = (list("differences"), list("quarantined"));
    session.out.value(&answer, || {
        let mut text =
            format!("{} events, {} rows at revision {}\n", answer["events"], answer["rows"], answer["revision"]);
        for (word, found) in [("differs", &differences), ("quarantined", &quarantined)] {
            for one in found {
                let field = |key: &str| crate::output::text::clean(one[key].as_str().unwrap_or_default());
                text += &format!("{word}  {}  {}\n", field("row"), field("what"));
            }
        }
        if differences.is_empty() && quarantined.is_empty() {
            text += "every row is the fold of its events\n";
        }
        text
    })?;
    Ok(u8::from(!differences.is_empty() || !quarantined.is_empty()))
}
