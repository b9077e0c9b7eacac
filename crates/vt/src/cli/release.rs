use clap::Args;

use super::noun::{self, CreateArgs, ListArgs, ShowArgs};
use super::session::Session;
use crate::failure::Outcome;

/// Releases: an image and a manifest, pinned
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt release list
  vt release show v2
  vt releases               the same list, with the one that is live")]
pub struct ReleaseArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it
    Show(ShowArgs),
    /// Makes one from a spec; `vt deploy` does so from the manifest
    Create(CreateArgs),
}

pub async fn run(session: &Session, args: &ReleaseArgs) -> Outcome {
    let act = match &args.verb {
        Verb::List(args) => noun::Act::List("release", args),
        Verb::Show(args) => noun::Act::Show("release", args),
        Verb::Create(args) => noun::Act::Create("release", args),
    };
    noun::run(session, act).await
}
