//! Answers about the program, the cloud itself, and its log.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use model::{Code, Error, Scope};
use reconcile::rows::from_store;
use reconcile::{Registry, log, replay as replays};
use serde_json::{Value, json};
use store::Range;

use super::call::Call;
use super::problem::Refusal;
use super::{json, with_type};
use crate::routes::PAGE_DEFAULT;

pub fn openapi(call: Call) -> Response {
    with_type(StatusCode::OK, "application/json", call.cloud.openapi.clone())
}

/// How long the store may take to answer whether it is there.
const READY_TIME_MAX: Duration = Duration::from_secs(5);

pub fn health(call: Call) -> Result<Response, Refusal> {
    let store = match call.cloud.rows.outage().away() {
        None => json!({"status": "answers"}),
        // Why is for those with a token: anyone may ask here.
        Some(away) => json!({"status": "away", "since_ms": away.since_ms}),
    };
    json(StatusCode::OK, &json!({"status": "up", "store": store}))
}

pub async fn ready(call: Call) -> Result<Response, Refusal> {
    if call.cloud.closing.is_cancelled() {
        return Err(Error::new(Code::Unavailable, "the control plane is stopping").into());
    }
    // A read, not the status: a member that is cut off from the others knows its own status well.
    let range = call.cloud.door.store().range(Range::prefix(reconcile::keys::ROWS).limit(1).keys_only().uncounted());
    let answer = tokio::time::timeout(READY_TIME_MAX, range).await.unwrap_or(Err(store::Error::TimedOut));
    let revision = answer.map_err(from_store)?.revision;
    json(StatusCode::OK, &json!({"status": "ready", "revision": revision.0}))
}

pub fn version(call: Call) -> Result<Response, Refusal> {
    json(StatusCode::OK, &json!({"version": call.cloud.version, "api": "v1"}))
}

pub fn metrics(call: Call) -> Response {
    let cloud = &call.cloud;
    let uptime = cloud.door.clock().monotonic().saturating_sub(cloud.started);
    let text = cloud.metrics.text(&cloud.rows.table(), uptime, &cloud.version);
    with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

pub fn whoami(call: Call) -> Result<Response, Refusal> {
    let who = call.principal()?;
    json(StatusCode::OK, &json!({"id": who.id, "name": who.name, "scope": who.scope, "read_only": who.read_only}))
}

pub fn info(call: Call) -> Result<Response, Refusal> {
    let mut info = (call.cloud.info)();
    if call.principal()?.scope != Scope::CLOUD
        && let Some(object) = info.as_object_mut()
    {
        object.remove("data_dir");
    }
    json(StatusCode::OK, &info)
}

pub fn config(call: Call) -> Result<Response, Refusal> {
    json(StatusCode::OK, &(call.cloud.settings)())
}

pub fn kinds(call: Call) -> Result<Response, Refusal> {
    json(StatusCode::OK, &summaries(call.cloud.door.registry()))
}

/// Every kind as callers see it, in order of name.
fn summaries(registry: &Registry) -> Vec<Value> {
    let summary = |contract: &reconcile::Contract| {
        let levels: Vec<&str> = contract.levels.iter().map(|level| level.noun()).collect();
        let columns: Vec<Value> =
            contract.columns.iter().map(|column| json!({"title": column.title, "pointer": column.pointer})).collect();
        let stream = |stream: &reconcile::kind::StreamContract| {
            let parameters: serde_json::Map<String, Value> =
                stream.parameters.iter().map(|(name, about)| ((*name).to_owned(), (*about).into())).collect();
            json!({"name": stream.name, "about": stream.about, "duplex": stream.duplex, "parameters": parameters})
        };
        json!({
            "name": contract.name,
            "plural": contract.plural,
            "prefix": contract.prefix,
            "about": contract.about,
            "levels": levels,
            "opens": contract.opens.map(model::Level::noun),
            "create": contract.create,
            "set": contract.set,
            "delete": contract.delete,
            "columns": columns,
            "streams": contract.streams.iter().map(stream).collect::<Vec<_>>(),
            "phases": contract.phases,
            "example": (contract.example)(),
        })
    };
    registry.iter().map(|kind| summary(kind.contract())).collect()
}

pub async fn replay(call: Call) -> Result<Response, Refusal> {
    json(StatusCode::OK, &replays::replay(&**call.cloud.door.store()).await?)
}

pub async fn events(call: Call) -> Result<Response, Refusal> {
    let (store, scope, query) = (&**call.cloud.door.store(), &call.seen()?.scope, &call.query);
    let page = match (query.number("newest"), query.number("from")) {
        (Some(_), Some(_)) => return Err(Error::invalid("newest", "`newest` and `from` exclude each other").into()),
        (Some(count), None) => log::newest(store, scope, count as usize).await?,
        (None, from) => {
            let limit = query.number("limit").unwrap_or(PAGE_DEFAULT) as usize;
            log::since(store, scope, from.unwrap_or(0), limit).await?
        }
    };
    json(StatusCode::OK, &json!({"items": page.events, "next": page.next}))
}
