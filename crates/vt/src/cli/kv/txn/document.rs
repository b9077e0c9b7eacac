//! A transaction as JSON. What is wrong is named with its place; an unknown key with the nearest right one.

use base64::Engine as _;
use bytes::Bytes;
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use serde_json::{Map, Value};

use crate::cli::kv::put;
use crate::cli::kv::stretch::{self, Stretch};
use crate::failure::Failure;

/// Transactions within transactions; no store takes more.
const DEPTH_MAX: usize = 16;

const KEYS: [&str; 6] = ["key", "key_base64", "end", "end_base64", "prefix", "from_key"];

pub fn read(text: &str) -> Result<TxnRequest, Failure> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("the document is not JSON: {error}")).hint("vt kv txn --help   shows one")
    })?;
    txn(&Object::new("", &value)?, 0)
}

/// One object of the document, and where it stands.
struct Object<'a> {
    place: String,
    fields: &'a Map<String, Value>,
}

fn refuse(place: &str, what: impl std::fmt::Display) -> Failure {
    let place = if place.is_empty() { "the document" } else { place };
    let mut failure = Failure::usage(format!("{place}: {what}"));
    failure.error.field = Some(place.to_owned());
    failure
}

impl<'a> Object<'a> {
    fn new(place: impl Into<String>, value: &'a Value) -> Result<Self, Failure> {
        let place = place.into();
        match value.as_object() {
            Some(fields) => Ok(Self { place, fields }),
            None => Err(refuse(&place, "must be an object")),
        }
    }

    fn at(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// Every key that is there must be one of these.
    fn only(&self, known: &[&str]) -> Result<(), Failure> {
        for key in self.fields.keys() {
            if !known.contains(&key.as_str()) {
                let near = model::manifest::nearest(key, known.iter().copied()).unwrap_or(known[0]);
                return Err(refuse(&self.at(key), "there is no such key").hint(format!("did you mean `{near}`?")));
            }
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, Failure> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(refuse(&self.at(key), "must be a text")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<i64>, Failure> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(value) => match value.as_i64().filter(|number| *number >= 0) {
                Some(number) => Ok(Some(number)),
                None => Err(refuse(&self.at(key), "must be a whole number from 0 up")),
            },
        }
    }

    fn flag(&self, key: &str) -> Result<bool, Failure> {
        match self.fields.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(refuse(&self.at(key), "must be true or false")),
        }
    }

    fn list(&self, key: &str) -> Result<&'a [Value], Failure> {
        match self.fields.get(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(refuse(&self.at(key), "must be a list")),
        }
    }

    /// A text under `key`, or base64 under `key_base64`.
    fn bytes(&self, key: &str) -> Result<Option<Bytes>, Failure> {
        let encoded = format!("{key}_base64");
        match (self.text(key)?, self.text(&encoded)?) {
            (Some(_), Some(_)) => Err(refuse(&self.at(key), format!("stands beside `{encoded}`"))),
            (Some(text), None) => Ok(Some(Bytes::from(text.to_owned()))),
            (None, Some(text)) => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                let decoded = decoded.map_err(|error| refuse(&self.at(&encoded), format!("is not base64: {error}")));
                decoded.map(|bytes| Some(bytes.into()))
            }
            (None, None) => Ok(None),
        }
    }

    /// Empty means none.
    fn lease(&self) -> Result<Option<i64>, Failure> {
        match self.text("lease")? {
            None => Ok(None),
            Some("") => Ok(Some(0)),
            Some(text) => put::lease(text).map(Some).map_err(|why| refuse(&self.at("lease"), why)),
        }
    }

    fn stretch(&self) -> Result<Stretch, Failure> {
        let key = self.bytes("key")?.ok_or_else(|| refuse(&self.place, "`key` is missing"))?;
        let (end, prefix, from_key) = (self.bytes("end")?, self.flag("prefix")?, self.flag("from_key")?);
        let stretch = match (end, prefix, from_key) {
            (Some(end), false, false) => stretch::between(key, end),
            (None, true, false) => Ok(stretch::prefix(key)),
            (None, false, true) => Ok(stretch::from(key)),
            (None, false, false) => stretch::one(key),
            _ => return Err(refuse(&self.place, "`end`, `prefix` and `from_key` exclude each other")),
        };
        stretch.map_err(|failure| refuse(&self.place, failure.error.message))
    }
}

fn txn(object: &Object<'_>, depth: usize) -> Result<TxnRequest, Failure> {
    if depth > DEPTH_MAX {
        return Err(refuse(&object.place, format!("more than {DEPTH_MAX} transactions within each other")));
    }
    object.only(&["when", "then", "else"])?;
    let acts = |key: &str| -> Result<Vec<RequestOp>, Failure> {
        let each = object.list(key)?.iter().enumerate();
        each.map(|(at, value)| act(&Object::new(format!("{}[{at}]", object.at(key)), value)?, depth)).collect()
    };
    let when = object.list("when")?.iter().enumerate();
    let when = when.map(|(at, value)| compare(&Object::new(format!("{}[{at}]", object.at("when")), value)?));
    Ok(TxnRequest { compare: when.collect::<Result<_, _>>()?, success: acts("then")?, failure: acts("else")? })
}

fn compare(object: &Object<'_>) -> Result<Compare, Failure> {
    const ABOUT: [&str; 7] = ["is", "version", "create_revision", "mod_revision", "value", "value_base64", "lease"];
    object.only(&[&KEYS[..], &ABOUT[..]].concat())?;
    let Stretch { key, end } = object.stretch()?;
    let result = match object.text("is")?.unwrap_or("=") {
        "=" | "==" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => return Err(refuse(&object.at("is"), format!("`{other}` compares nothing")).hint("=, !=, > or <")),
    };
    let statements = [
        object.number("version")?.map(|number| (CompareTarget::Version, TargetUnion::Version(number))),
        object.number("create_revision")?.map(|number| (CompareTarget::Create, TargetUnion::CreateRevision(number))),
        object.number("mod_revision")?.map(|number| (CompareTarget::Mod, TargetUnion::ModRevision(number))),
        object.bytes("value")?.map(|value| (CompareTarget::Value, TargetUnion::Value(value))),
        object.lease()?.map(|lease| (CompareTarget::Lease, TargetUnion::Lease(lease))),
    ];
    let mut statements = statements.into_iter().flatten();
    let (Some((target, union)), None) = (statements.next(), statements.next()) else {
        let message = "says not exactly one of version, create_revision, mod_revision, value, lease";
        return Err(refuse(&object.place, message));
    };
    let target_union = Some(union);
    Ok(Compare { result: result as i32, target: target as i32, key, range_end: end, target_union })
}

fn act(object: &Object<'_>, depth: usize) -> Result<RequestOp, Failure> {
    const ACTS: [&str; 4] = ["put", "get", "delete", "txn"];
    object.only(&ACTS)?;
    let mut fields = object.fields.iter();
    let (Some((name, value)), None) = (fields.next(), fields.next()) else {
        return Err(refuse(&object.place, format!("must hold exactly one of {}", ACTS.join(", "))));
    };
    let inner = Object::new(object.at(name), value)?;
    let request = match name.as_str() {
        "put" => Request::RequestPut(put(&inner)?),
        "get" => Request::RequestRange(get(&inner)?),
        "delete" => {
            inner.only(&KEYS)?;
            let Stretch { key, end } = inner.stretch()?;
            Request::RequestDeleteRange(DeleteRangeRequest { key, range_end: end, prev_kv: false })
        }
        _ => Request::RequestTxn(txn(&inner, depth + 1)?),
    };
    Ok(RequestOp { request: Some(request) })
}

fn put(object: &Object<'_>) -> Result<PutRequest, Failure> {
    object.only(&["key", "key_base64", "value", "value_base64", "lease", "keep_value", "keep_lease"])?;
    let (keep_value, keep_lease) = (object.flag("keep_value")?, object.flag("keep_lease")?);
    let value = object.bytes("value")?;
    if value.is_some() == keep_value {
        let what = if keep_value { "`value` and `keep_value` exclude each other" } else { "`value` is missing" };
        return Err(refuse(&object.place, what));
    }
    Ok(PutRequest {
        key: object.stretch()?.key,
        value: value.unwrap_or_default(),
        lease: object.lease()?.unwrap_or(0),
        prev_kv: false,
        ignore_value: keep_value,
        ignore_lease: keep_lease,
    })
}

fn get(object: &Object<'_>) -> Result<RangeRequest, Failure> {
    object.only(&[&KEYS[..], &["limit", "revision", "keys_only", "count_only"][..]].concat())?;
    let Stretch { key, end } = object.stretch()?;
    Ok(RangeRequest {
        key,
        range_end: end,
        limit: object.number("limit")?.unwrap_or(0),
        revision: object.number("revision")?.unwrap_or(0),
        keys_only: object.flag("keys_only")?,
        count_only: object.flag("count_only")?,
        ..RangeRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_everything_that_the_protocol_can() {
        let txn = read(
            r#"{"when": [{"key": "a", "version": 0}, {"key": "b/", "prefix": true, "is": ">", "mod_revision": 7},
                         {"key_base64": "/w==", "is": "!=", "value": "x"}, {"key": "l", "lease": "ff"}],
                "then": [{"put": {"key": "a", "value_base64": "/wA=", "lease": "ff"}}, {"get": {"key": "a", "end": "c", "limit": 2}},
                         {"txn": {"then": [{"delete": {"key": "d", "from_key": true}}]}}],
                "else": [{"put": {"key": "a", "keep_value": true}}]}"#,
        )
        .unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (4, 3, 1));
        assert_eq!(txn.compare[1].range_end, Bytes::from_static(b"b0"));
        assert_eq!(
            (&txn.compare[2].key[..], &txn.compare[3].target_union),
            (&[0xff][..], &Some(TargetUnion::Lease(255)))
        );
        let Some(Request::RequestTxn(inner)) = &txn.success[2].request else { panic!("{txn:?}") };
        let Some(Request::RequestDeleteRange(delete)) = &inner.success[0].request else { panic!("{inner:?}") };
        assert_eq!((&delete.key[..], &delete.range_end[..]), (&b"d"[..], &b"\0"[..]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (document, place) in [
            ("[]", "the document"),
            (r#"{"thn": []}"#, "thn"),
            (r#"{"then": [{}]}"#, "then[0]"),
            (r#"{"then": [{"put": {"key": "a", "vale": "1"}}]}"#, "then[0].put.vale"),
            (r#"{"then": [{"put": {"key": "a"}}]}"#, "then[0].put"),
            (r#"{"then": [{"put": {"value": "a"}}]}"#, "then[0].put"),
            (r#"{"then": [{"get": {"key": "b", "end": "a"}}]}"#, "then[0].get"),
            (r#"{"then": [{"get": {"key": "b", "limit": -1}}]}"#, "then[0].get.limit"),
            (r#"{"when": [{"key": "a"}]}"#, "when[0]"),
            (r#"{"when": [{"key": "a", "version": 1, "value": "b"}]}"#, "when[0]"),
            (r#"{"when": [{"key": "a", "version": "1"}]}"#, "when[0].version"),
            (r#"{"when": [{"key": "a", "is": "~", "version": 1}]}"#, "when[0].is"),
            (r#"{"when": [{"key": "a", "key_base64": "YQ==", "version": 1}]}"#, "when[0].key"),
            (r#"{"else": [{"txn": {"then": [{"delete": {"key": ""}}]}}]}"#, "else[0].txn.then[0].delete"),
        ] {
            let failure = read(document).unwrap_err();
            assert_eq!(
                (failure.error.field.as_deref(), failure.exit_code()),
                (Some(place), 2),
                "{document}: {failure:?}"
            );
        }
        let deep = format!("{}{{}}{}", r#"{"then": [{"txn": "#.repeat(20), "}]}".repeat(20));
        assert!(read(&deep).unwrap_err().error.message.contains("within each other"));
    }
}
