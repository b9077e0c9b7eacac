use clap::Args;
use serde_json::json;

use super::session::Session;
use crate::client::{Api, nouns};
use crate::failure::Outcome;
use crate::machine::{self, Finding, State};

/// Looks at this machine and at its cloud, and says how to mend what is wrong
///
/// Ends with 1 when something must be mended before a cloud can run here.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt doctor
  vt doctor --json
  vt doctor --data-dir /srv/photon")]
pub struct DoctorArgs {
    /// Where `vt up` would keep its data
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
}

pub async fn run(session: &Session, args: &DoctorArgs) -> Outcome {
    let cloud = cloud(session).await;
    let running = cloud.iter().any(|finding| finding.name == "api" && finding.state == State::Good);
    let info = if running { session.api()?.get("/v1/info", &[]).await.unwrap_or_default() } else { json!({}) };
    let data_dir = args.data_dir.clone().or_else(|| info["data_dir"].as_str().map(Into::into));
    let mut findings = machine::look(data_dir.as_deref(), running).await;
    findings.extend(cloud);
    let good = machine::fit(&findings);
    let list: Vec<_> = findings.iter().map(Finding::to_json).collect();
    session.out.value(&json!({ "ok": good, "findings": list }), || machine::render(&findings, running))?;
    Ok(u8::from(!good))
}

/// What can be said of the cloud that the settings name. Nothing runs: one line, and no fault.
async fn cloud(session: &Session) -> Vec<Finding> {
    let api = match session.api() {
        Ok(api) => api,
        Err(failure) => return vec![Finding::note("api", failure.error.message, failure.error.hint)],
    };
    if let Err(failure) = api.get("/health", &[]).await {
        return vec![Finding::note("api", failure.error.message, failure.error.hint)];
    }
    let mut findings = vec![Finding::good("api", format!("{} answers", api.address()))];
    findings.push(match api.get("/ready", &[]).await {
        Ok(_) => Finding::good("store", "answers"),
        Err(failure) => Finding::bad("store", failure.error.message, "look at what `vt up` prints"),
    });
    findings.push(match api.get("/v1/whoami", &[]).await {
        Ok(who) => Finding::good("token", format!("{} is accepted", who["name"].as_str().unwrap_or("it"))),
        Err(failure) => Finding::bad("token", failure.error.message, failure.error.hint),
    });
    findings.extend(nodes(&api).await);
    findings
}

async fn nodes(api: &Api) -> Vec<Finding> {
    let Some(noun) = nouns::find("node") else { return Vec::new() };
    let Ok(nodes) = api.list(noun, &[]).await else { return Vec::new() };
    let mut findings = Vec::new();
    for node in nodes {
        let name = format!("node {}", node.row.name);
        let engine = node.status("engine").unwrap_or("unknown");
        let why = node.status("engine_why").unwrap_or_default();
        findings.push(match &node.row.reason {
            Some(reason) => Finding::bad(name, reason.message.clone(), reason.remedy.clone()),
            None if engine == "kvm" => Finding::good(name, format!("{}, engine kvm: {why}", node.row.phase)),
            None => Finding::note(
                name,
                format!("{}, engine {engine}: {why}", node.row.phase),
                "guests run many times faster with KVM: turn virtualisation on where this machine runs",
            ),
        });
        // A node may tell checks of its own: of its network, of its disks.
        for check in node.row.status.get("checks").and_then(serde_json::Value::as_array).into_iter().flatten() {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            let name = format!("node {} {}", node.row.name, text("name"));
            findings.push(if check["ok"] == true {
                Finding::good(name, text("what"))
            } else {
                Finding::bad(name, text("what"), text("fix"))
            });
        }
    }
    findings
}
