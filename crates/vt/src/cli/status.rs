use clap::Args;
use model::Reason;
use serde_json::{Value, json};
use std::fmt::Write as _;

use super::noun::noun_of;
use super::session::Session;
use crate::client::{Api, Item, Target};
use crate::failure::{Failure, Outcome};
use crate::output::table::{Column, render};
use crate::output::text;

/// What runs: the live release, its URL, its instances, and what is in the way
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt status
  vt status -e staging
  vt status --json | jq -r .url")]
pub struct StatusArgs {}

/// An env with everything in it, in stable order.
#[derive(Debug)]
pub struct View {
    pub env: Item,
    /// Oldest first.
    pub deploys: Vec<Item>,
    pub instances: Vec<Item>,
    pub routes: Vec<Item>,
}

/// Reads an env with what is in it.
pub async fn read(api: &Api, env: &Item) -> Result<View, Failure> {
    let scope = env.row.inner_scope().to_string();
    let query = [("scope", scope.as_str())];
    let mut deploys = api.list(noun_of("deploy")?, &query).await?;
    // Ids begin with the time of their making; two of one moment are told apart by the rest.
    deploys.sort_by(|a, b| (a.row.created_ms, &a.row.id).cmp(&(b.row.created_ms, &b.row.id)));
    let mut instances = api.list(noun_of("vm")?, &query).await?;
    instances.sort_by(|a, b| (&a.row.name, &a.row.id).cmp(&(&b.row.name, &b.row.id)));
    let mut routes = api.list(noun_of("route")?, &query).await?;
    routes.sort_by(|a, b| (a.row.created_ms, &a.row.id).cmp(&(b.row.created_ms, &b.row.id)));
    Ok(View { env: env.clone(), deploys, instances, routes })
}

impl View {
    fn live(&self) -> Option<&Item> {
        self.deploys.iter().rev().find(|deploy| deploy.row.phase == "live" && !deploy.row.deleting())
    }

    /// The deploy that is under way.
    pub fn rolling(&self) -> Option<&Item> {
        self.deploys.iter().rev().find(|deploy| {
            matches!(deploy.row.phase.as_str(), "pending" | "queued" | "rolling") && !deploy.row.deleting()
        })
    }

    /// The newest one.
    fn last(&self) -> Option<&Item> {
        self.deploys.last()
    }

    /// Id of the release that runs.
    pub fn live_release(&self) -> Option<String> {
        Some(self.live()?.row.spec.get("release")?.as_str()?.to_owned())
    }

    /// Id of the release that ran before the live one.
    pub fn earlier_release(&self) -> Option<&str> {
        let live = self.live();
        let live_release = live.and_then(|live| live.row.spec.get("release"));
        let before = self
            .deploys
            .iter()
            .rev()
            .skip_while(|deploy| live.is_some_and(|live| live.row.id != deploy.row.id))
            .skip(1);
        let mut earlier =
            before.filter(|deploy| deploy.row.phase == "superseded" && deploy.row.spec.get("release") != live_release);
        earlier.find_map(|deploy| deploy.row.spec.get("release")?.as_str())
    }

    /// The URL of the live deploy, else of the first route.
    pub fn url(&self) -> Option<&str> {
        let live = self.live().and_then(|live| live.status("url"));
        live.or_else(|| self.routes.iter().find_map(|route| route.status("url")))
    }

    /// The worst that stands in the way: a fault before a step on the way, an instance before what counts it.
    pub fn blocker(&self) -> Option<(String, Reason)> {
        self.reasons().into_iter().next()
    }

    fn reasons(&self) -> Vec<(String, Reason)> {
        // An old deploy's failure is history once a newer one exists.
        let deploys = self.deploys.iter().filter(|deploy| {
            deploy.row.phase != "failed" || self.last().is_some_and(|last| last.row.id == deploy.row.id)
        });
        let all = self.instances.iter().chain(&self.routes).chain(deploys).chain([&self.env]);
        let mut all: Vec<(String, Reason)> = all
            .filter_map(|item| Some((format!("{} {}", item.row.kind, item.row.name), item.row.reason.clone()?)))
            .collect();
        all.sort_by_key(|(_, reason)| reason.transient);
        all
    }

    fn to_json(&self, app: &str) -> Value {
        let live = self.live();
        let instances: Vec<Value> = self
            .instances
            .iter()
            .map(|vm| {
                json!({
                    "id": vm.row.id,
                    "name": vm.row.name,
                    "process": vm.row.spec.get("process"),
                    "phase": vm.row.phase,
                    "address": vm.status("address6").or_else(|| vm.status("address4")),
                    "restarts": vm.status_number("restarts").unwrap_or_default(),
                    "reason": vm.row.reason,
                    "deploy": vm.row.owner,
                    "created_ms": vm.row.created_ms,
                })
            })
            .collect();
        let routes: Vec<Value> = self
            .routes
            .iter()
            .map(|route| json!({ "id": route.row.id, "name": route.row.name, "url": route.status("url"), "phase": route.row.phase, "reason": route.row.reason }))
            .collect();
        let deploys = |item: Option<&Item>| {
            item.map(|item| json!({ "id": item.row.id, "name": item.row.name, "phase": item.row.phase, "reason": item.row.reason }))
        };
        let blockers: Vec<Value> =
            self.reasons().into_iter().map(|(what, reason)| json!({ "what": what, "reason": reason })).collect();
        json!({
            "app": app,
            "env": self.env.row.name,
            "url": self.url(),
            "phase": self.last().map_or("empty", |last| last.row.phase.as_str()),
            "release": self.live_release(),
            "release_number": live.and_then(|live| live.status_number("release_number")),
            "deploy": live.map(|live| live.row.id.clone()),
            "desired": live.and_then(|live| live.status_number("desired")).unwrap_or_default(),
            "ready": self.instances.iter().filter(|vm| vm.row.phase == "ready").count(),
            "instances": instances,
            "routes": routes,
            "rolling": deploys(self.rolling()),
            "last": deploys(self.last()),
            "blockers": blockers,
        })
    }
}

pub async fn run(session: &Session, _args: &StatusArgs) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let app = target.app().await?.row.name.clone();
    let view = read(&api, target.env().await?).await?;
    let answer = view.to_json(&app);
    session.out.value(&answer, || human(&answer, session.out.now_ms))?;
    Ok(0)
}

fn human(answer: &Value, now_ms: u64) -> String {
    let word = |value: &Value| text::clean(value.as_str().unwrap_or_default());
    let mut out = format!("{}/{}  ", word(&answer["app"]), word(&answer["env"]));
    match answer["release_number"].as_u64() {
        Some(number) => {
            let _ = writeln!(out, "live: release v{number}, {} of {} ready", answer["ready"], answer["desired"]);
        }
        None if answer["last"].is_null() => out += "nothing is deployed yet\nnext: vt deploy\n",
        None => out += "no release is live\n",
    }
    if let Some(url) = answer["url"].as_str().filter(|_| !answer["release"].is_null()) {
        let _ = writeln!(out, "{}", text::clean(url));
    }
    let last = &answer["last"];
    if !last.is_null() && last["phase"] != "live" {
        let _ = write!(out, "deploy {} is {}", word(&last["name"]), word(&last["phase"]));
        if let Some(message) = last["reason"]["message"].as_str() {
            let _ = write!(out, ": {}", text::clean(message));
        }
        out.push('\n');
    }
    let instances = answer["instances"].as_array().cloned().unwrap_or_default();
    if !instances.is_empty() {
        let columns = [
            ("INSTANCE", "/name"),
            ("PROCESS", "/process"),
            ("PHASE", "/phase"),
            ("ADDRESS", "/address"),
            ("RESTARTS", "/restarts"),
            ("AGE", "/created_ms"),
            ("REASON", "/reason/message"),
        ];
        out.push('\n');
        out += &render(&instances, &columns.map(|(title, pointer)| Column::new(title, pointer)), now_ms);
    }
    let routes = answer["routes"].as_array().cloned().unwrap_or_default();
    if routes.len() > 1 {
        let columns = [("ROUTE", "/name"), ("URL", "/url"), ("PHASE", "/phase"), ("REASON", "/reason/message")];
        out.push('\n');
        out += &render(&routes, &columns.map(|(title, pointer)| Column::new(title, pointer)), now_ms);
    }
    for blocker in
        answer["blockers"].as_array().into_iter().flatten().filter(|blocker| blocker["reason"]["transient"] != true)
    {
        let remedy = word(&blocker["reason"]["try"]);
        let _ = writeln!(out, "\n{}: {}", word(&blocker["what"]), word(&blocker["reason"]["message"]));
        if !remedy.is_empty() {
            let _ = writeln!(out, "  try:  {remedy}");
        }
        let _ = writeln!(out, "  docs: vt explain {}", word(&blocker["reason"]["code"]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Id, Scope};

    // One fixture for every row of the picture; each argument is one thing that the picture shows.
    #[allow(clippy::too_many_arguments)]
    fn item(
        kind: &str,
        prefix: &str,
        bits: u128,
        name: &str,
        phase: &str,
        spec: Value,
        status: Value,
        reason: Option<Reason>,
    ) -> Item {
        let scope: Scope =
            Scope::CLOUD.child(Id::from_bits("org", 1)).child(Id::from_bits("prj", 1)).child(Id::from_bits("app", 1));
        let scope = if kind == "env" { scope } else { scope.child(Id::from_bits("env", 1)) };
        Item::read(json!({
            "id": Id::from_bits(prefix, bits), "kind": kind, "name": name, "scope": scope, "version": 3, "generation": 1,
            "spec": spec, "observed_generation": 1, "phase": phase, "reason": reason, "status": status,
            "created_ms": bits as u64 * 1000, "updated_ms": 9000, "correlation": Id::from_bits("req", 1), "last_event": Id::from_bits("ev", 1),
        }))
        .unwrap()
    }

    fn view() -> View {
        let release = |bits| json!({ "release": Id::from_bits("rel", bits) });
        let fault = Reason {
            since_ms: 60_000,
            ..Reason::fault("crash_loop_backoff", "the process ended 3 times with code 1", "vt logs --vm web-2")
        };
        View {
            env: item("env", "env", 1, "prod", "ready", json!({}), Value::Null, None),
            deploys: vec![
                item("deploy", "dep", 1, "d1", "superseded", release(1), json!({ "release_number": 1 }), None),
                item(
                    "deploy",
                    "dep",
                    2,
                    "d2",
                    "live",
                    release(2),
                    json!({ "release_number": 2, "desired": 2, "ready": 1, "url": "http://shop-prod.vt.localhost:8080" }),
                    None,
                ),
                item(
                    "deploy",
                    "dep",
                    3,
                    "d3",
                    "failed",
                    release(3),
                    json!({}),
                    Some(Reason::fault("image_pull_failed", "the registry refused", "log in")),
                ),
            ],
            instances: vec![
                item(
                    "vm",
                    "vm",
                    4,
                    "web-1",
                    "ready",
                    json!({ "process": "web" }),
                    json!({ "address6": "fd00::1", "restarts": 0 }),
                    None,
                ),
                item(
                    "vm",
                    "vm",
                    5,
                    "web-2",
                    "failed",
                    json!({ "process": "web" }),
                    json!({ "address6": "fd00::2", "restarts": 3 }),
                    Some(fault),
                ),
            ],
            routes: vec![item(
                "route",
                "rt",
                6,
                "shop-prod",
                "ready",
                json!({}),
                json!({ "url": "http://shop-prod.vt.localhost:8080" }),
                None,
            )],
        }
    }

    #[test]
    fn the_whole_state_of_an_env_is_told() {
        let view = view();
        insta::assert_snapshot!("human", human(&view.to_json("shop"), 120_000));
        insta::assert_json_snapshot!("json", view.to_json("shop"));
        assert_eq!(view.earlier_release(), Some(Id::from_bits("rel", 1).as_str()));
    }

    #[test]
    fn an_empty_env_names_the_next_command() {
        let view = View { deploys: Vec::new(), instances: Vec::new(), routes: Vec::new(), ..view() };
        insta::assert_snapshot!(human(&view.to_json("shop"), 0), @r"
        shop/prod  nothing is deployed yet
        next: vt deploy
        ");
    }
}
