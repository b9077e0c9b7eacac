//! JSON bodies: bounded in size and time, and without unknown keys.

use axum::body::Body;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::{Code, Error, Id, Scope};
use serde_json::{Map, Value};

use super::nearest;
use super::problem::Refusal;
use crate::config::Limits;

/// `POST`: what is to be made, and where.
#[derive(Debug)]
pub struct New {
    pub scope: Scope,
    pub name: String,
    pub spec: Value,
    pub owner: Option<Id>,
}

impl New {
    pub async fn read(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Self, Refusal> {
        let mut object = object(headers, body, limits, &["scope", "name", "spec", "owner"]).await?;
        let scope = text(&mut object, "scope")?.unwrap_or_default();
        let scope = scope.parse().map_err(|error: model::id::InvalidId| Error::invalid("scope", error.to_string()))?;
        // Some kinds number their rows themselves; for the others the door says that the name is missing.
        let name = text(&mut object, "name")?.unwrap_or_default();
        let owner = text(&mut object, "owner")?.map(|owner| owner.parse::<Id>());
        let owner = owner.transpose().map_err(|error| Error::invalid("owner", error.to_string()))?;
        Ok(Self { scope, name, spec: spec(&mut object)?, owner })
    }
}

/// `PUT`: the new spec.
pub async fn read_spec(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Value, Refusal> {
    let mut object = object(headers, body, limits, &["spec"]).await?;
    Ok(spec(&mut object)?)
}

fn spec(object: &mut Map<String, Value>) -> Result<Value, Error> {
    match object.remove("spec") {
        Some(spec @ Value::Object(_)) => Ok(spec),
        Some(_) => Err(Error::invalid("spec", "`spec` must be an object")),
        None => Err(Error::invalid("spec", "`spec` is missing").hint("send {\"spec\": {...}}")),
    }
}

fn text(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, Error> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(field, format!("`{field}` must be a text"))),
    }
}

async fn object(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    allowed: &[&str],
) -> Result<Map<String, Value>, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let error =
            Error::new(Code::InvalidArgument, "the body must be JSON").hint("set Content-Type: application/json");
        return Err(Refusal::from(error).status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let collect = Limited::new(body, limits.json_bytes_max).collect();
    let collected = match tokio::time::timeout(limits.body_time_max, collect).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let message = format!("the body is larger than {} bytes", limits.json_bytes_max);
            return Err(Error::new(Code::TooLarge, message).into());
        }
        Ok(Err(error)) => return Err(Error::new(Code::InvalidArgument, format!("the body broke off: {error}")).into()),
        Err(_) => {
            let error = Error::new(Code::InvalidArgument, "the body took too long to arrive");
            return Err(Refusal::from(error).status(StatusCode::REQUEST_TIMEOUT));
        }
    };
    let value: Value = serde_json::from_slice(&collected)
        .map_err(|error| Error::new(Code::InvalidArgument, format!("the body is not JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(Error::new(Code::InvalidArgument, "the body must be an object").into());
    };
    if let Some(unknown) = object.keys().find(|key| !allowed.contains(&key.as_str())) {
        let shown: String = unknown.chars().take(80).collect();
        return Err(Error::invalid(shown.clone(), format!("unknown key `{shown}` in the body"))
            .hint(nearest::hint(unknown, allowed.iter().copied()))
            .into());
    }
    Ok(object)
}
