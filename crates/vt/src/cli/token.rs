use base64::Engine as _;
use clap::{Args, Subcommand, ValueEnum};
use model::{Level, Scope};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::noun::{self, DeleteArgs, ListArgs, ShowArgs};
use super::session::Session;
use crate::client::{Target, key};
use crate::failure::Outcome;
use crate::output::receipt::Receipt;

/// What every token begins with.
const PREFIX: &str = "vt_at_";

/// Tokens: who may act on the cloud, an org or a project
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt token list
  vt token create ci
  vt token delete ci")]
pub struct TokenArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it, but never its text
    Show(ShowArgs),
    /// Makes one. Its text is made here, shown once, and only its hash is sent
    #[command(before_help = "Examples:
  vt token create ci
  vt token create report --read-only --expires 12h
  vt token create ci --json | jq -r .token > ci.token")]
    Create(CreateArgs),
    /// Asks one to go; it is refused from then on
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may act on
    #[arg(long, value_enum, default_value = "project", value_name = "LEVEL")]
    level: At,
    /// It sees everything there and changes nothing
    #[arg(long)]
    read_only: bool,
    /// Refuse it after this time: 30m, 12h
    #[arg(long, value_name = "TIME", value_parser = super::wait::seconds)]
    expires: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum At {
    Cloud,
    Org,
    Project,
}

pub async fn run(session: &Session, args: &TokenArgs) -> Outcome {
    match &args.verb {
        Verb::List(args) => noun::run(session, noun::Act::List("token", args)).await,
        Verb::Show(args) => noun::run(session, noun::Act::Show("token", args)).await,
        Verb::Delete(args) => noun::run(session, noun::Act::Delete("token", args)).await,
        Verb::Create(args) => create(session, args).await,
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Outcome {
    model::name::check("name", &args.name)?;
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let scope = match args.level {
        At::Cloud => Scope::CLOUD,
        At::Org => target.scope(Level::Org).await?,
        At::Project => target.scope(Level::Project).await?,
    };
    let (text, hash) = generate();
    let mut spec = json!({ "hash": hash, "read_only": args.read_only });
    if let Some(seconds) = args.expires {
        spec["expires_ms"] = json!(session.out.now_ms + seconds * 1000);
    }
    let item = api.create(noun::noun_of("token")?, &scope, &args.name, &spec, &key()).await?;
    let next = vec!["VT_TOKEN=... vt auth whoami".to_owned(), format!("vt token delete {}", args.name)];
    session.out.note("the token is shown this once; nobody can show it again");
    Receipt { operation: "created", item: &item, next, extra: vec![("token", json!(text))] }.print(&session.out)?;
    Ok(0)
}

/// A token's text and the hash under which the cloud knows it.
fn generate() -> (String, String) {
    use std::fmt::Write as _;
    let body: [u8; 32] = world::random::bytes();
    let text = format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(body));
    let hash = Sha256::digest(&text).iter().fold("sha256:".to_owned(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    });
    (text, hash)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_token_has_the_form_that_the_api_takes() {
        let (text, hash) = super::generate();
        assert_eq!((text.len(), hash.len()), (6 + 43, 7 + 64));
        assert!(text.starts_with("vt_at_"));
    }
}
