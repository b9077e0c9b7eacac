use clap::{Args, Subcommand};
use std::fmt::Write as _;

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
    /// Prints the API's OpenAPI document as this program serves it; needs no cloud
    #[command(before_help = "Examples:
  vt admin openapi
  vt admin openapi > openapi.json
  vt admin openapi --json")]
    Openapi,
}

pub async fn run(session: &Session, args: &AdminArgs) -> Outcome {
    match args.verb {
        Verb::Replay => replay(session).await,
        Verb::Openapi => {
            let document = control::openapi(&crate::cloud::describe()?);
            let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
            crate::output::write(&text)?;
            Ok(0)
        }
    }
}

async fn replay(session: &Session) -> Outcome {
    let answer = session.api()?.post("/v1/admin/replay", &serde_json::json!({})).await?;
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let (differences, quarantined) = (list("differences"), list("quarantined"));
    session.out.value(&answer, || {
        let mut text =
            format!("{} events, {} rows at revision {}\n", answer["events"], answer["rows"], answer["revision"]);
        for (word, found) in [("differs", &differences), ("quarantined", &quarantined)] {
            for one in found {
                let field = |key: &str| crate::output::text::clean(one[key].as_str().unwrap_or_default());
                let _ = writeln!(text, "{word}  {}  {}", field("row"), field("what"));
            }
        }
        if differences.is_empty() && quarantined.is_empty() {
            text += "every row is the fold of its events\n";
        }
        text
    })?;
    Ok(u8::from(!differences.is_empty() || !quarantined.is_empty()))
}
