//! Rows: list, get, create, set, delete; their events, why, wait.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use model::{Error, Event, Id, Row};
use reconcile::wait::{self, Outcome};
use reconcile::{Receipt, Verb, log, rows, why as reasons};
use serde_json::json;

use super::call::{Call, Subject};
use super::problem::Refusal;
use super::{Cloud, json, wire};
use crate::routes::{PAGE_DEFAULT, WAIT_SECONDS_DEFAULT};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub async fn list(call: Call) -> Result<Response, Refusal> {
    let (cloud, query, seen) = (&call.cloud, &call.query, call.seen()?);
    let asked = query.scope();
    let owner = query.id("owner");
    let keep = |row: &Row| {
        (!query.flag("exact") || row.scope == asked)
            && query.text("name").is_none_or(|name| row.name == name)
            && query.text("phase").is_none_or(|phase| row.phase == phase)
            && owner.as_ref().is_none_or(|owner| row.owner.as_ref() == Some(owner))
    };
    let limit = query.number("limit").unwrap_or(PAGE_DEFAULT) as usize;
    let after = query.id("cursor");
    let kind = call.kind();
    let mut page = rows::list(&**cloud.door.store(), &seen.scope, kind, after.as_ref(), limit, keep).await?;
    let above = seen.above.iter().filter(|row| row.kind == kind && keep(row));
    page.rows.extend(above.filter(|row| after.as_ref().is_none_or(|after| row.id > *after)).cloned());
    page.rows.sort_by(|a, b| a.id.cmp(&b.id));
    let more = page.next.is_some() || page.rows.len() > limit;
    page.rows.truncate(limit);
    let next = more.then(|| page.rows.last().map(|row| row.id.clone())).flatten();
    let items: Vec<_> = page.rows.iter().map(|row| wire::row(cloud, row)).collect();
    json(StatusCode::OK, &json!({"items": items, "next": next, "revision": page.revision}))
}

pub fn get(call: Call) -> Result<Response, Refusal> {
    wire::answer(&call.cloud, StatusCode::OK, call.row()?)
}

pub async fn create(mut call: Call) -> Result<Response, Refusal> {
    let Subject::New(new) = std::mem::replace(&mut call.subject, Subject::Nothing) else {
        return Err(Error::internal("a route without a body asks for one").into());
    };
    let kind = call.kind().to_owned();
    submit(&call, Verb::Create { kind, scope: new.scope, name: new.name, spec: new.spec, owner: new.owner }).await
}

pub async fn set(mut call: Call) -> Result<Response, Refusal> {
    let (id, spec) = (call.row_id()?.clone(), call.spec.take());
    submit(&call, Verb::SetSpec { id, spec, if_version: call.if_version }).await
}

pub async fn delete(call: Call) -> Result<Response, Refusal> {
    let id = call.row_id()?.clone();
    submit(&call, Verb::Delete { id, if_version: call.if_version }).await
}

async fn submit(call: &Call, verb: Verb) -> Result<Response, Refusal> {
    let receipt: Receipt = call.cloud.door.one(call.origin()?, verb).await?;
    let replayed = receipt.replayed;
    let status = StatusCode::from_u16(call.route().success).expect("the table holds statuses");
    let mut response = wire::answer(&call.cloud, status, &receipt.row())?;
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

pub async fn events(call: Call) -> Result<Response, Refusal> {
    let row = call.row()?;
    let found = log::of_row(&**call.cloud.door.store(), &row.scope, &row.id).await?;
    let limit = call.query.number("limit").unwrap_or(PAGE_DEFAULT) as usize;
    let latest: &[Event] = &found[found.len().saturating_sub(limit)..];
    json(StatusCode::OK, &json!({"items": latest, "next": null}))
}

pub async fn why(call: Call) -> Result<Response, Refusal> {
    let table = caught_up(&call).await?;
    let mut why = reasons::explain(&call.cloud.door, &table, call.row()?).await?;
    // A row above the token's scope, or a cause from beside it, must not show what lies outside.
    let scope = &call.principal()?.scope;
    why.chain.retain(|event| scope.contains(&event.scope) || event.row == why.row.id);
    why.blockers.retain(|blocker| {
        blocker.id == why.row.id || table.get(&blocker.id).is_some_and(|row| scope.contains(&row.scope))
    });
    why.settled = why.blockers.is_empty();
    json(StatusCode::OK, &why)
}

/// The table of rows, once it holds the row as this request read it.
async fn caught_up(call: &Call) -> Result<std::sync::Arc<reconcile::Table>, Error> {
    let Subject::Row(_, revision) = &call.subject else { return Err(Error::not_found("this")) };
    let reached = call.cloud.rows.reach(*revision);
    if tokio::time::timeout(call.cloud.limits.request_time_max, reached).await.is_err() {
        let message = format!("the view of rows has not reached revision {revision}");
        return Err(Error::new(model::Code::ViewBehind, message).hint("ask again"));
    }
    Ok(call.cloud.rows.table())
}

pub async fn wait(call: Call) -> Result<Response, Refusal> {
    let (cloud, row) = (&call.cloud, call.row()?);
    // Subscribed before the look, so that no change falls between the two.
    let changes = cloud.changes.subscribe();
    caught_up(&call).await?;
    let generation = call.query.number("generation").unwrap_or(row.generation);
    let limit = Duration::from_secs(call.query.number("timeout_seconds").unwrap_or(WAIT_SECONDS_DEFAULT));
    let waiting = async {
        if call.query.text("for") == Some("gone") {
            return Ok(gone(cloud, changes, &row.id, limit).await);
        }
        let failed = |row: &Row| row.phase == "failed" && row.reason.as_ref().is_some_and(|reason| !reason.transient);
        wait::settled(&cloud.rows, changes, &row.id, generation, limit, failed).await
    };
    let outcome = tokio::select! {
        outcome = waiting => outcome?,
        () = cloud.closing.cancelled() => {
            return Err(Error::new(model::Code::Unavailable, "the control plane is stopping").hint("ask again").into());
        }
    };
    let (word, row) = match &outcome {
        Outcome::Settled(row) => ("settled", Some(row)),
        Outcome::Failed(row) => ("failed", Some(row)),
        Outcome::Gone => ("gone", None),
        Outcome::Waiting(row) => ("waiting", Some(row)),
    };
    let row = row.map(|row| wire::row(cloud, row));
    json(StatusCode::OK, &json!({"outcome": word, "row": row}))
}

async fn gone(
    cloud: &Cloud,
    mut changes: tokio::sync::broadcast::Receiver<rows::Changed>,
    id: &Id,
    limit: Duration,
) -> Outcome {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let Some(row) = cloud.rows.table().get(id).cloned() else { return Outcome::Gone };
        // A follower that fell behind looks again, as after any change.
        if tokio::time::timeout_at(deadline, changes.recv()).await.is_err() {
            return Outcome::Waiting(row);
        }
    }
}
