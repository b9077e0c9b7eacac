use clap::{Args, Subcommand};

use super::session::Session;
use crate::failure::Outcome;
use crate::output::table::grid;

/// Who you are to the cloud
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt auth whoami
  vt auth whoami --json
  VT_TOKEN=vt_at_... vt auth whoami")]
pub struct AuthArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows the token that is used: its name, its scope, what it may do
    #[command(before_help = "Examples:
  vt auth whoami
  vt auth whoami --json
  vt auth whoami --token-file ./ci.token")]
    Whoami,
}

pub async fn run(session: &Session, args: &AuthArgs) -> Outcome {
    let Verb::Whoami = args.verb;
    let api = session.api()?;
    let answer = api.get("/v1/whoami", &[]).await?;
    session.out.value(&answer, || {
        let field = |key: &str| crate::output::text::clean(answer[key].as_str().unwrap_or_default());
        let scope = field("scope");
        let rights = if answer["read_only"] == true {
            "sees everything there and changes nothing"
        } else {
            "sees and changes everything there"
        };
        grid(vec![
            vec!["token".into(), field("name")],
            vec!["id".into(), field("id")],
            vec!["scope".into(), if scope.is_empty() { "the whole cloud".into() } else { scope }],
            vec!["may".into(), rights.into()],
            vec!["api".into(), api.address().into()],
        ])
    })?;
    Ok(0)
}
