//! The OpenAPI 3.1 document, made from the route table and the kinds' contracts.

use model::{Event, Row};
use reconcile::{Registry, why::Why};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::Problem;
use crate::routes::{Action, Form, Guard, Parameter, Payload, Route, routes};

const SCHEMAS: &str = "/components/schemas";

/// The whole document. The same registry gives the same bytes.
pub fn openapi(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for route in routes(registry) {
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(&route, registry);
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Photon",
            "version": "v1",
            "summary": "The API of a Photon cloud.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "`vt_at_` and 43 characters of base64url, as `vt token create` makes it.",
            }},
            "schemas": schemas(registry),
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#{SCHEMAS}/{name}")})
}

/// `Spec` of kind `thing`: `thing.spec`.
fn kind_schema(kind: &str, part: &str) -> String {
    format!("{kind}.{part}")
}

fn schemas(registry: &Registry) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = SCHEMAS.into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<Row>();
    generator.subschema_for::<Event>();
    generator.subschema_for::<Why>();
    generator.subschema_for::<reconcile::replay::Replay>();
    generator.subschema_for::<Problem>();
    let mut schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    for kind in registry.iter() {
        let contract = kind.contract();
        hoist(&mut schemas, &kind_schema(contract.name, "spec"), (contract.spec)().to_value());
        hoist(&mut schemas, &kind_schema(contract.name, "status"), (contract.status)().to_value());
        let nullable = json!({"anyOf": [{"type": "object"}, {"type": "null"}]});
        let phase = if contract.phases.is_empty() {
            json!({"type": "string"})
        } else {
            json!({"type": "string", "examples": contract.phases})
        };
        let own = json!({
            "description": contract.about,
            "allOf": [reference("Row"), {"type": "object", "properties": {
                "kind": {"const": contract.name},
                "spec": reference(&kind_schema(contract.name, "spec")),
                "status": {"anyOf": [reference(&kind_schema(contract.name, "status")), {"type": "null"}]},
                "phase": phase,
                "progress": nullable,
            }}],
        });
        schemas.insert(contract.name.to_owned(), own);
        let page = json!({"type": "object", "required": ["items", "next", "revision"], "properties": {
            "items": {"type": "array", "items": reference(contract.name)},
            "next": {"type": ["string", "null"], "description": "`cursor` of the next page."},
            "revision": {"type": "integer", "description": "The revision at which the page was read."},
        }});
        schemas.insert(kind_schema(contract.name, "page"), page);
    }
    Value::Object(schemas)
}

/// Takes a schema with definitions of its own into the document; they stand beside it under its name.
fn hoist(schemas: &mut Map<String, Value>, name: &str, mut schema: Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        if let Some(Value::Object(definitions)) = object.remove("$defs") {
            for (own, mut definition) in definitions {
                rename(&mut definition, name);
                schemas.insert(format!("{name}.{own}"), definition);
            }
        }
    }
    rename(&mut schema, name);
    schemas.insert(name.to_owned(), schema);
}

fn rename(value: &mut Value, name: &str) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(own) = target.strip_prefix("#/$defs/") {
                            *target = format!("#{SCHEMAS}/{name}.{own}");
                        } else if target == "#" {
                            *target = format!("#{SCHEMAS}/{name}");
                        }
                    }
                    value => rename(value, name),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn operation(route: &Route, registry: &Registry) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), operation_id(route).into());
    operation.insert("summary".into(), route.about.clone().into());
    operation.insert("tags".into(), json!([route.kind.unwrap_or("cloud")]));
    if route.guard == Guard::Open {
        operation.insert("security".into(), json!([]));
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = request_body(route, registry) {
        operation.insert("requestBody".into(), body);
    }
    let mut responses = Map::new();
    responses.insert(route.success.to_string(), success(route));
    responses.insert(
        "default".into(),
        json!({
            "description": "A refusal or a failure (RFC 9457).",
            "content": {"application/problem+json": {"schema": reference("Problem")}},
        }),
    );
    operation.insert("responses".into(), responses.into());
    operation.into()
}

fn operation_id(route: &Route) -> String {
    let words = |path: &str| {
        let words: Vec<&str> =
            path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != "v1").collect();
        words.join("_")
    };
    format!("{}_{}", route.method.as_str().to_lowercase(), words(&route.path))
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut out = Vec::new();
    for segment in route.path.split('/') {
        let Some(name) = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) else { continue };
        let schema = match name {
            "id" => reference("Id"),
            _ => json!({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}),
        };
        out.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }
    for Parameter { name, about, form } in &route.parameters {
        let schema = match form {
            Form::Text => json!({"type": "string"}),
            Form::Flag => json!({"type": "boolean"}),
            Form::Number { min, max: u64::MAX } => json!({"type": "integer", "minimum": min}),
            Form::Number { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
            Form::Id => reference("Id"),
            Form::Scope => reference("Scope"),
            Form::OneOf(words) => json!({"type": "string", "enum": words}),
        };
        out.push(json!({"name": name, "in": "query", "description": about, "schema": schema}));
    }
    let header = |name: &str, about: &str, schema: Value| json!({"name": name, "in": "header", "description": about, "schema": schema});
    if matches!(route.action, Action::Create | Action::Set | Action::Delete) {
        let about = "The same key with the same request has one effect and one answer, for 24 hours.";
        out.push(header("Idempotency-Key", about, json!({"type": "string", "minLength": 1, "maxLength": 128})));
    }
    if matches!(route.action, Action::Set | Action::Delete) {
        out.push(header("If-Match", "Refuse unless the row is at this version.", json!({"type": "string"})));
    }
    if matches!(route.action, Action::WatchRows | Action::WatchEvents) {
        out.push(header("Last-Event-ID", "Go on after this event.", json!({"type": "integer"})));
    }
    out
}

fn request_body(route: &Route, registry: &Registry) -> Option<Value> {
    let kind = route.kind.and_then(|kind| registry.get(kind));
    let (schema, example) = match (route.payload, kind) {
        (Payload::New, Some(kind)) => {
            let (contract, example) = (kind.contract(), (kind.contract().example)());
            let scope = contract.levels.first().map_or_else(String::new, |level| {
                let ids = [("org", 1_u128), ("prj", 2), ("app", 3), ("env", 4)];
                let ids = ids
                    .iter()
                    .take(*level as usize)
                    .map(|(prefix, bits)| model::Id::from_bits(prefix, *bits).to_string());
                ids.collect::<Vec<_>>().join("/")
            });
            let schema = json!({
                "type": "object",
                "required": ["name", "spec"],
                "additionalProperties": false,
                "properties": {
                    "scope": reference("Scope"),
                    "name": {"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"},
                    "spec": reference(&kind_schema(contract.name, "spec")),
                    "owner": {"anyOf": [reference("Id"), {"type": "null"}]},
                },
            });
            (schema, json!({"scope": scope, "name": "example", "spec": example}))
        }
        (Payload::Spec, Some(kind)) => {
            let schema = json!({
                "type": "object",
                "required": ["spec"],
                "additionalProperties": false,
                "properties": {"spec": reference(&kind_schema(kind.contract().name, "spec"))},
            });
            (schema, json!({"spec": (kind.contract().example)()}))
        }
        (Payload::Blob, _) => {
            return Some(json!({"required": true, "content": {"application/octet-stream": {}}}));
        }
        _ => return None,
    };
    Some(json!({"required": true, "content": {"application/json": {"schema": schema, "example": example}}}))
}

fn success(route: &Route) -> Value {
    let json_of =
        |about: &str, schema: Value| json!({"description": about, "content": {"application/json": {"schema": schema}}});
    let kind = route.kind.unwrap_or_default();
    let events = |next: Value| {
        json!({"type": "object", "required": ["items", "next"], "properties": {
            "items": {"type": "array", "items": reference("Event")}, "next": next}})
    };
    match route.action {
        Action::List => json_of("One page.", reference(&kind_schema(kind, "page"))),
        Action::Create | Action::Get | Action::Set | Action::Delete => {
            let mut answer = json_of("The row.", reference(kind));
            answer["headers"] = json!({"ETag": {"description": "The row's version.", "schema": {"type": "string"}}});
            answer
        }
        Action::RowEvents => json_of("Events, oldest first.", events(json!({"type": "null"}))),
        Action::Events => {
            let next = json!({"type": "integer", "description": "Ask on from here."});
            json_of("Events, in order of sequence.", events(next))
        }
        Action::Why => json_of("The reasons.", reference("Why")),
        Action::Wait => json_of(
            "How the wait ended.",
            json!({"type": "object", "required": ["outcome", "row"], "properties": {
                "outcome": {"enum": ["settled", "failed", "gone", "waiting"]},
                "row": {"anyOf": [reference(kind), {"type": "null"}]}}}),
        ),
        Action::Replay => json_of("What the replay found.", reference("Replay")),
        Action::Whoami => json_of(
            "The token.",
            json!({"type": "object", "required": ["id", "name", "scope", "read_only"], "properties": {
                "id": reference("Id"), "name": {"type": "string"}, "scope": reference("Scope"),
                "read_only": {"type": "boolean"}}}),
        ),
        Action::Config => json_of(
            "Every setting.",
            json!({"type": "array", "items": {"type": "object", "required": ["key", "value", "origin"], "properties": {
                "key": {"type": "string"}, "value": true, "origin": {"type": "string"}}}}),
        ),
        Action::Kinds => {
            json_of("Every kind, in order of name.", json!({"type": "array", "items": {"type": "object"}}))
        }
        Action::Info | Action::OpenApi | Action::Health | Action::Ready | Action::Version | Action::PutBlob => {
            json_of("The answer.", json!({"type": "object"}))
        }
        Action::WatchRows | Action::WatchEvents => {
            json!({"description": "Events until either side ends.", "content": {"text/event-stream": {}}})
        }
        Action::Stream(contract) if contract.duplex => {
            json!({"description": "A WebSocket. The first message is a JSON text that says what is wanted; binary frames follow."})
        }
        Action::Stream(_) => {
            json!({"description": "One JSON object a line.", "content": {"application/x-ndjson": {}}})
        }
        Action::HasBlob => json!({"description": "It is there."}),
        Action::Metrics => json!({"description": "Counters and gauges.", "content": {"text/plain": {}}}),
    }
}
