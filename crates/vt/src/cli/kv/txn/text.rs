//! A transaction as etcdctl reads it from its standard input.
//!
//! ```text
//! mod("key1") > "0"          comparisons: value, version, create (c), mod (m), lease
//!
//! put key1 "it was there"    operations when all hold: put, get, del
//!
//! get key1                   operations else
//! ```

use bytes::Bytes;
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::cli::kv::put;
use crate::cli::kv::stretch::{self, Stretch};
use crate::failure::Failure;

/// Comparisons, then, else.
const PARTS: usize = 3;

pub fn read(text: &str) -> Result<TxnRequest, Failure> {
    let mut txn = TxnRequest::default();
    let mut part = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let wrong = |what: String| {
            Failure::usage(format!("line {}: {what}", at + 1)).hint("vt kv txn --help   shows both forms")
        };
        if line.is_empty() {
            part += 1;
            continue;
        }
        match part {
            0 => txn.compare.push(compare(line).map_err(wrong)?),
            1 => txn.success.push(act(line).map_err(wrong)?),
            2 => txn.failure.push(act(line).map_err(wrong)?),
            _ => return Err(wrong(format!("there are {PARTS} parts, an empty line between each"))),
        }
    }
    Ok(txn)
}

/// A line as words: in double quotes with `\` before what is meant literally, in single quotes as it is, or bare.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            match c {
                '"' | '\'' => loop {
                    match chars.next() {
                        None => return Err(format!("a quote is opened and not closed: {line}")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            Some('n') => word.push('\n'),
                            Some('t') => word.push('\t'),
                            Some(literal) => word.push(literal),
                            None => return Err(format!("a quote is opened and not closed: {line}")),
                        },
                        Some(inner) => word.push(inner),
                    }
                },
                bare => word.push(bare),
            }
        }
        words.push(word);
    }
}

fn compare(line: &str) -> Result<Compare, String> {
    let form = || format!("`{line}` is no comparison; write for example mod(\"key\") > \"0\"");
    let (about, rest) = line.split_once('(').ok_or_else(form)?;
    let (key, rest) = rest.rsplit_once(')').ok_or_else(form)?;
    let rest = rest.trim_start();
    let (result, value) = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ]
    .into_iter()
    .find_map(|(sign, result)| Some((result, rest.strip_prefix(sign)?)))
    .ok_or_else(form)?;
    let single = |text: &str| {
        let mut words = words(text)?;
        if words.len() == 1 { Ok(words.remove(0)) } else { Err(form()) }
    };
    let (key, value) = (single(key)?, single(value)?);
    let number = || value.parse::<i64>().map_err(|_| format!("`{value}` is no whole number"));
    let (target, union) = match about.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value.clone()))),
        "lease" if value == "0" => (CompareTarget::Lease, TargetUnion::Lease(0)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(put::lease(&value)?)),
        other => return Err(format!("`{other}` is nothing a key has; write value, version, create, mod or lease")),
    };
    Ok(Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

fn act(line: &str) -> Result<RequestOp, String> {
    let words = words(line)?;
    let (flags, words): (Vec<&str>, Vec<&str>) =
        words.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let mut lease = 0;
    let (mut prefix, mut from_key) = (false, false);
    for flag in flags {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("--lease", id) => lease = put::lease(id)?,
            ("--prefix", "" | "true") => prefix = true,
            ("--from-key", "" | "true") => from_key = true,
            _ => return Err(format!("{flag} is not known here")),
        }
    }
    let stretch = |key: &str, end: Option<&str>| -> Result<Stretch, String> {
        let key = Bytes::from(key.to_owned());
        let stretch = match end {
            Some(end) => stretch::between(key, Bytes::from(end.to_owned())),
            None if prefix => Ok(stretch::prefix(key)),
            None if from_key => Ok(stretch::from(key)),
            None => stretch::one(key),
        };
        stretch.map_err(|failure| failure.error.message)
    };
    let request = match words[..] {
        ["put", key, value] => Request::RequestPut(PutRequest {
            key: stretch(key, None)?.key,
            value: Bytes::from(value.to_owned()),
            lease,
            ..PutRequest::default()
        }),
        ["get", key] | ["get", key, _] => {
            let Stretch { key, end } = stretch(key, words.get(2).copied())?;
            Request::RequestRange(RangeRequest { key, range_end: end, ..RangeRequest::default() })
        }
        ["del" | "delete", key] | ["del" | "delete", key, _] => {
            let Stretch { key, end } = stretch(key, words.get(2).copied())?;
            Request::RequestDeleteRange(DeleteRangeRequest { key, range_end: end, prev_kv: false })
        }
        _ => return Err(format!("`{line}` is no operation; write put KEY VALUE, get KEY or del KEY")),
    };
    Ok(RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_etcdctl_is_read() {
        let text = "mod(\"key1\") > \"0\"\nvalue(k2) != 'a b'\n\nput key1 \"over \\\"written\\\"\"\nget --prefix key\n\nput key1 'new'\ndel a c\n\n";
        let txn = read(text).unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (2, 2, 2));
        assert_eq!(txn.compare[0].target_union, Some(TargetUnion::ModRevision(0)));
        assert_eq!(txn.compare[1].target_union, Some(TargetUnion::Value("a b".into())));
        let Some(Request::RequestPut(put)) = &txn.success[0].request else { panic!("{txn:?}") };
        assert_eq!((&put.key[..], &put.value[..]), (&b"key1"[..], &b"over \"written\""[..]));
        let Some(Request::RequestRange(get)) = &txn.success[1].request else { panic!("{txn:?}") };
        assert_eq!((&get.key[..], &get.range_end[..]), (&b"key"[..], &b"kez"[..]));
        assert_eq!(read("\nput a 1\n").unwrap().success.len(), 1);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in [
            "mod(a",
            "mod(a) ~ 1",
            "size(a) = 1",
            "version(a) = x",
            "\nput a",
            "\ndance",
            "\nget b a",
            "\nput 'a 1",
            "\n\n\n\nget a",
        ] {
            let failure = read(text).unwrap_err();
            assert!(failure.error.message.starts_with("line "), "{text}: {failure:?}");
        }
    }
}
