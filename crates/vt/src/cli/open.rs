use std::io::IsTerminal as _;

use clap::Args;
use model::Code;
use serde_json::json;

use super::session::Session;
use super::status;
use crate::client::Target;
use crate::failure::{Failure, Outcome};

/// Prints the app's URL, and opens it where there is a desktop
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt open
  vt open -e staging
  curl -s $(vt open)        in a pipe nothing but the URL is printed")]
pub struct OpenArgs {}

pub async fn run(session: &Session, _args: &OpenArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let env = target.env().await?;
    let view = status::read(&api, env).await?;
    let url = view.url().ok_or_else(|| {
        Failure::new(Code::NotFound, format!("{} has no URL", session.place()))
            .why("a process with a port and a health check gets one when it is deployed")
            .hint("vt route create --process web --port 8080   makes one")
    })?;
    session.out.value(&json!({ "url": url }), || format!("{url}\n"))?;
    let desktop = std::env::var_os("DISPLAY").is_some() || std::env::var_os("WAYLAND_DISPLAY").is_some();
    if session.out.human() && desktop && std::io::stdout().is_terminal() && url.starts_with("http") {
        // A desktop that cannot open it has been told the URL all the same.
        let _ = world::process::Run::new("xdg-open").args([url]).output().await;
    }
    Ok(0)
}
