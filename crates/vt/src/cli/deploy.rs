use clap::Args;
use model::manifest::{Image, Manifest, PullPolicy};
use serde_json::json;

use super::noun::{self, HeldVerb};
use super::rollout::{self, Verdict};
use super::session::Session;
use super::upload;
use crate::client::{Api, Item, Target, key};
use crate::failure::{Failure, Outcome};
use crate::output::receipt::Receipt;
use crate::output::steps::Steps;
use crate::output::text;

/// Brings the app in this folder up, and ends when traffic has moved to it
///
/// Makes the app and the env where they are missing, uploads an image that is only on this machine, makes a release
/// and rolls it out. Prints the URL on stdout. When the new instances do not come up, the last good release keeps
/// running, and the reason is told. Ctrl-C only stops looking.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    before_help = "Examples:
  vt deploy
  vt deploy --image oci:./image:latest -e staging
  vt deploy list            earlier deploys of this app"
)]
pub struct DeployArgs {
    #[command(subcommand)]
    verb: Option<HeldVerb>,
    /// Instead of the manifest's image
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// Come back once the deploy is accepted
    #[arg(long)]
    no_wait: bool,
    /// The longest that it is watched
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = super::wait::seconds)]
    wait_timeout: u64,
}

pub async fn run(session: &Session, args: &DeployArgs) -> Outcome {
    if let Some(verb) = &args.verb {
        return noun::run(session, verb.act("deploy")).await;
    }
    let manifest = with_image(session.settings.manifest()?.clone(), args.image.as_deref())?;
    let source = upload::source(session, &manifest, args.image.is_some())?;
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let mut steps = Steps::begin(&session.out);
    // What the manifest is for is said by the flag or by itself; both have to name the same thing to make sense.
    let (app, made) = target.app_or_create(&manifest.app.description).await?;
    if made {
        steps.step(&format!("app {}  made", app.row.name));
    }
    let (env, made) = target.env_or_create().await?;
    if made {
        steps.step(&format!("env {}  made", env.row.name));
    }
    let project = target.project().await?;
    let project = project.last().map(ToString::to_string).unwrap_or_default();
    let image = upload::place(&api, &project, &source, &mut steps).await?;
    let release = release(&api, app, &image, &manifest, &mut steps).await?;
    start(session, &api, env, &release, steps, &Follow { wait: !args.no_wait, seconds: args.wait_timeout }).await
}

/// The manifest with the image that the command line names.
pub fn with_image(mut manifest: Manifest, image: Option<&str>) -> Result<Manifest, Failure> {
    if let Some(reference) = image {
        let pull_policy = manifest.image.as_ref().map_or(PullPolicy::default(), |image| image.pull_policy);
        manifest.image = Some(Image { reference: reference.to_owned(), pull_policy });
        manifest.validate()?;
    }
    Ok(manifest)
}

async fn release(
    api: &Api,
    app: &Item,
    image: &str,
    manifest: &Manifest,
    steps: &mut Steps<'_>,
) -> Result<Item, Failure> {
    steps.draw(&format!("release  asking for {image}"));
    let spec = json!({ "image": image, "manifest": manifest });
    let item = api.create(noun::noun_of("release")?, &app.row.inner_scope(), "", &spec, &key()).await?;
    let digest = item.raw.pointer("/spec/resolved/digest").or_else(|| item.raw.pointer("/status/digest"));
    let digest = digest.and_then(serde_json::Value::as_str).map(text::digest).unwrap_or_default();
    steps.step(format!("release {}  {digest}", item.row.name).trim_end());
    Ok(item)
}

/// How a rollout is watched.
#[derive(Debug)]
pub struct Follow {
    pub wait: bool,
    pub seconds: u64,
}

/// Starts a rollout of `release` and follows it to its end.
pub async fn start(
    session: &Session,
    api: &Api,
    env: &Item,
    release: &Item,
    mut steps: Steps<'_>,
    follow: &Follow,
) -> Outcome {
    let spec = json!({ "release": release.row.id });
    let deploy = api.create(noun::noun_of("deploy")?, &env.row.inner_scope(), "", &spec, &key()).await?;
    let place = session.place();
    if !follow.wait {
        let next = vec![format!("vt wait {}", deploy.row.id), "vt status".to_owned()];
        let extra = vec![("release", json!(release.row.id)), ("deploy", json!(deploy.row.id))];
        Receipt { operation: "deploy accepted", item: &deploy, next, extra }.print(&session.out)?;
        return Ok(0);
    }
    match rollout::follow(api, &deploy, &mut steps, follow.seconds).await? {
        Verdict::Live(deploy) => {
            steps.clear();
            let url = deploy.status("url").map(str::to_owned);
            let answer = json!({
                "url": url,
                "release": release.row.id,
                "deploy": deploy.row.id,
                "instances": deploy.raw.pointer("/status/instances").cloned().unwrap_or_else(|| json!([])),
                "app": session.settings.get("app"),
                "env": session.settings.get("env"),
                "release_number": deploy.status_number("release_number"),
                "phase": deploy.row.phase,
                "elapsed_ms": steps.elapsed_ms(),
                "next": ["vt status", "vt logs -f", "vt rollback"],
            });
            if session.out.human() {
                let ready = deploy.status_number("ready").unwrap_or_default();
                session.out.note(format!("{place} is live: release {}, {ready} ready", release.row.name));
                session.out.note("next: vt status | vt logs -f | vt rollback");
            }
            session.out.value(&answer, || match &url {
                Some(url) => format!("{url}\n"),
                None => "no route: the app has no process with a port and a health check\n".to_owned(),
            })?;
            Ok(0)
        }
        Verdict::Detached(code) => Ok(code),
    }
}
