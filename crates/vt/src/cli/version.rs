use clap::Args;
use serde_json::json;

use super::session::Session;
use crate::failure::Outcome;

/// The version of this program, and of the cloud it speaks to
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt version
  vt version --json
  vt version --context lab")]
pub struct VersionArgs {}

pub async fn run(session: &Session, _args: &VersionArgs) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    // A cloud that is not there has no version; that is no failure of this command.
    let cloud = match session.api() {
        Ok(api) => api.get("/version", &[]).await.ok(),
        Err(_) => None,
    };
    let cloud = cloud.as_ref().and_then(|cloud| cloud["version"].as_str());
    session.out.value(&json!({ "version": own, "api": "v1", "cloud": cloud }), || match cloud {
        Some(cloud) => format!("vt {own}, cloud {cloud}\n"),
        None => format!("vt {own}\n"),
    })?;
    Ok(0)
}
