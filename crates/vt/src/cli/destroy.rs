use clap::Args;

use super::session::Session;
use super::{confirm, noun};
use crate::client::Target;
use crate::failure::Outcome;

/// Removes an env of the app, or the whole app, with everything in it
///
/// Instances stop, routes go, secrets are forgotten. Releases go with the app.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt destroy                the app, after a question
  vt destroy -e staging --yes
  vt destroy -a shop --yes --no-wait")]
pub struct DestroyArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Come back once it is accepted
    #[arg(long)]
    no_wait: bool,
}

pub async fn run(session: &Session, args: &DestroyArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let app = target.app().await?;
    // Only someone who named an env means the env alone.
    if session.settings.explicit("env") {
        let env = target.env().await?;
        let question =
            format!("Env {} of app {} goes, with its instances, routes and secrets.", env.row.name, app.row.name);
        confirm::typed(session, &question, &env.row.name, args.yes)?;
        return noun::remove(session, &api, noun::noun_of("env")?, env, !args.no_wait).await;
    }
    let question = format!("App {} goes, with all its envs, instances, routes, secrets and releases.", app.row.name);
    confirm::typed(session, &question, &app.row.name, args.yes)?;
    noun::remove(session, &api, noun::noun_of("app")?, app, !args.no_wait).await
}
