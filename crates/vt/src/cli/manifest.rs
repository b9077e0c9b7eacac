use clap::{Args, Subcommand};
use model::manifest;
use serde_json::json;

use super::session::Session;
use crate::failure::{EXIT_CHANGES, Failure, Outcome};

/// Checks and formats vt.toml, without a network
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt manifest check
  vt manifest fmt --write
  vt manifest schema > vt.schema.json")]
pub struct ManifestArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says whether the manifest is right, and where it is not
    #[command(before_help = "Examples:
  vt manifest check
  vt manifest check --manifest other.toml
  vt manifest check --json")]
    Check,
    /// Prints the manifest's canonical text
    #[command(before_help = "Examples:
  vt manifest fmt
  vt manifest fmt --write
  vt manifest fmt --check   ends with 10 when it would change")]
    Fmt(FmtArgs),
    /// Prints the JSON schema of the manifest
    #[command(before_help = "Examples:
  vt manifest schema
  vt manifest schema > vt.schema.json
  vt manifest schema --format yaml")]
    Schema,
}

#[derive(Debug, Args)]
struct FmtArgs {
    /// Write it back to the file
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Print nothing; end with 10 when the text would change
    #[arg(long)]
    check: bool,
    /// Write even where comments would be lost
    #[arg(long, requires = "write")]
    force: bool,
}

pub fn run(session: &Session, args: &ManifestArgs) -> Outcome {
    match &args.verb {
        Verb::Check => check(session),
        Verb::Fmt(args) => format(session, args),
        Verb::Schema => {
            let schema = schemars::schema_for!(manifest::Manifest).to_value();
            session.out.value(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n")?;
            Ok(0)
        }
    }
}

fn check(session: &Session) -> Outcome {
    let found = session.settings.manifest()?;
    let path = session.settings.get("manifest").unwrap_or(manifest::FILE_NAME);
    let processes: Vec<_> = found.processes.keys().cloned().collect();
    let answer =
        json!({ "ok": true, "manifest": path, "app": found.app.name, "hash": found.hash(), "processes": processes });
    session.out.value(&answer, || format!("{path} is right: {}\n", processes.join(", ")))?;
    Ok(0)
}

fn format(session: &Session, args: &FmtArgs) -> Outcome {
    let found = session.settings.manifest()?;
    let path = session.settings.get("manifest").unwrap_or(manifest::FILE_NAME);
    let canonical = found.canonical();
    let failed = |error: std::io::Error| Failure::new(model::Code::Failed, format!("{path}: {error}"));
    let before = std::fs::read_to_string(path).map_err(failed)?;
    let changed = before != canonical;
    if args.check {
        session.out.value(&json!({ "changed": changed, "hash": found.hash() }), String::new)?;
        return Ok(if changed { EXIT_CHANGES } else { 0 });
    }
    if args.write {
        let comments = before.lines().filter(|line| line.trim_start().starts_with('#')).count();
        if changed && comments > 0 && !args.force {
            return Err(Failure::usage(format!(
                "{path} has {comments} comment(s), which the canonical text does not keep"
            ))
            .hint("vt manifest fmt --write --force   writes it anyway"));
        }
        if changed {
            world::file::write_atomic(path.as_ref(), canonical.as_bytes(), 0o644).map_err(failed)?;
        }
        let what = if changed { "written" } else { "already canonical" };
        session.out.value(&json!({ "changed": changed, "hash": found.hash() }), || format!("{path}  {what}\n"))?;
        return Ok(0);
    }
    session.out.value(&json!({ "changed": changed, "hash": found.hash(), "text": canonical }), || canonical.clone())?;
    Ok(0)
}
