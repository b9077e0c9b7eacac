//! `vt` alone: what this machine would run a cloud with, and the next command.

use serde_json::json;

use super::session::Session;
use crate::client::{Api, Target};
use crate::config::Settings;
use crate::failure::Outcome;
use crate::machine::{self, Finding};

pub async fn run(session: &Session) -> Outcome {
    let running = running(&session.settings).await;
    let data_dir = if running { data_dir(&session.settings).await } else { None };
    let findings = machine::look(data_dir.as_deref(), running).await;
    let good = machine::fit(&findings);
    let next = next(session, running, good).await;
    let list: Vec<_> = findings.iter().map(Finding::to_json).collect();
    session.out.value(&json!({ "ok": good, "running": running, "findings": list, "next": next }), || {
        format!("{}\nnext: {next}\n", machine::summary(&findings))
    })?;
    Ok(0)
}

async fn running(settings: &Settings) -> bool {
    match Api::open(settings) {
        Ok(api) => api.get("/health", &[]).await.is_ok(),
        Err(_) => false,
    }
}

/// Where the cloud that runs keeps its data; only its owner is told.
async fn data_dir(settings: &Settings) -> Option<std::path::PathBuf> {
    let info = Api::open(settings).ok()?.get("/v1/info", &[]).await.ok()?;
    info["data_dir"].as_str().map(Into::into)
}

/// The one command that leads on from here.
async fn next(session: &Session, running: bool, good: bool) -> &'static str {
    if !running {
        return if good { "vt up   starts the cloud here" } else { "vt doctor   says how to mend what is missing" };
    }
    let Ok(Some(_)) = session.settings.manifest_optional() else {
        return "vt launch --image REF   writes a vt.toml for an image; then vt deploy";
    };
    let Ok(api) = session.api() else { return "vt doctor" };
    let here = Target::new(&api, &session.settings).env().await.is_ok();
    if here { "vt status" } else { "vt deploy   brings the app in this folder up" }
}
