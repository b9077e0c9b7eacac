//! Rows and events, for programs and for people.

use base64::Engine as _;
use etcd::proto::mvccpb::{Event, KeyValue, event::EventType};
use serde_json::{Map, Value, json};

use crate::output::Column;

/// Bytes under `name` where they are text; else null there, and the bytes in base64 under `name_base64`.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        object.insert(name.to_owned(), json!(text));
    } else {
        object.insert(name.to_owned(), Value::Null);
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        object.insert(format!("{name}_base64"), json!(encoded));
    }
}

/// A lease's id as people write it; null for none.
pub fn lease(id: i64) -> Value {
    if id == 0 { Value::Null } else { json!(format!("{id:x}")) }
}

pub fn row(kv: &KeyValue) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", &kv.key);
    put_bytes(&mut object, "value", &kv.value);
    object.insert("version".to_owned(), json!(kv.version));
    object.insert("create_revision".to_owned(), json!(kv.create_revision));
    object.insert("mod_revision".to_owned(), json!(kv.mod_revision));
    object.insert("lease".to_owned(), lease(kv.lease));
    Value::Object(object)
}

pub fn columns() -> Vec<Column> {
    [
        ("KEY", "/key"),
        ("VALUE", "/value"),
        ("VERSION", "/version"),
        ("CREATED", "/create_revision"),
        ("CHANGED", "/mod_revision"),
        ("LEASE", "/lease"),
    ]
    .map(|(title, pointer)| Column::new(title, pointer))
    .to_vec()
}

pub fn event(event: &Event) -> Value {
    let kv = event.kv.clone().unwrap_or_default();
    let mut object = Map::new();
    let put = event.r#type == EventType::Put as i32;
    object.insert("type".to_owned(), json!(if put { "put" } else { "delete" }));
    object.insert("revision".to_owned(), json!(kv.mod_revision));
    put_bytes(&mut object, "key", &kv.key);
    if put {
        put_bytes(&mut object, "value", &kv.value);
        object.insert("version".to_owned(), json!(kv.version));
        object.insert("create_revision".to_owned(), json!(kv.create_revision));
        object.insert("lease".to_owned(), lease(kv.lease));
    }
    if let Some(previous) = &event.prev_kv {
        object.insert("previous".to_owned(), row(previous));
    }
    Value::Object(object)
}

/// One event in one line.
pub fn line(event: &Event) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let key = kv.key.escape_ascii();
    let was = event.prev_kv.as_ref().map_or_else(String::new, |was| format!("  (was {})", was.value.escape_ascii()));
    if event.r#type == EventType::Put as i32 {
        format!("{:>8}  put     {key} = {}{was}\n", kv.mod_revision, kv.value.escape_ascii())
    } else {
        format!("{:>8}  delete  {key}{was}\n", kv.mod_revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_base64() {
        let kv = KeyValue { key: "k".into(), value: vec![0xff, 0].into(), lease: 255, ..KeyValue::default() };
        let row = row(&kv);
        assert_eq!((&row["key"], &row["value"], &row["value_base64"]), (&json!("k"), &Value::Null, &json!("/wA=")));
        assert_eq!(row["lease"], "ff");
        let deleted = Event { r#type: 1, kv: Some(kv), prev_kv: None };
        assert_eq!(line(&deleted), "       0  delete  k\n");
        assert!(event(&deleted).get("value").is_none());
    }
}
