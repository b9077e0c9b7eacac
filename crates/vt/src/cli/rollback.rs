use clap::Args;
use model::Code;

use super::deploy::{Follow, start};
use super::releases::number;
use super::session::Session;
use super::{noun, status};
use crate::client::Target;
use crate::failure::{Failure, Outcome};
use crate::output::steps::Steps;

/// Deploys an earlier release again
///
/// Without a number: the release that was live before the present one.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt rollback
  vt rollback 3
  vt rollback 3 -e staging --json")]
pub struct RollbackArgs {
    /// A release's number, as `vt releases` shows it
    #[arg(value_name = "N")]
    number: Option<String>,
    /// Come back once the deploy is accepted
    #[arg(long)]
    no_wait: bool,
    /// The longest that it is watched
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = super::wait::seconds)]
    wait_timeout: u64,
}

pub async fn run(session: &Session, args: &RollbackArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let scope = target.app().await?.row.inner_scope().to_string();
    let env = target.env().await?;
    let releases = api.list(noun::noun_of("release")?, &[("scope", scope.as_str())]).await?;
    let view = status::read(&api, env).await?;
    let wanted = match &args.number {
        Some(text) => {
            let wanted = text.trim_start_matches('v').parse::<u64>();
            let found = wanted.ok().and_then(|wanted| releases.iter().find(|release| number(&release.raw) == wanted));
            found.ok_or_else(|| {
                Failure::new(Code::NotFound, format!("there is no release {text}")).hint("vt releases   lists them")
            })?
        }
        None => {
            let earlier = view.earlier_release();
            let found = earlier.and_then(|id| releases.iter().find(|release| release.row.id.as_str() == id));
            found.ok_or_else(|| {
                Failure::new(Code::NotFound, format!("{} has no earlier release to go back to", session.place()))
                    .hint("vt releases   lists what there is; vt rollback N   takes one of them")
            })?
        }
    };
    if view.live_release().as_deref() == Some(wanted.row.id.as_str()) && args.number.is_some() {
        session.out.note(format!("release {} is live already; it is deployed again", wanted.row.name));
    }
    let mut steps = Steps::begin(&session.out);
    steps.step(&format!("release {}  chosen", wanted.row.name));
    start(session, &api, env, wanted, steps, &Follow { wait: !args.no_wait, seconds: args.wait_timeout }).await
}
