//! Which keys are meant.

use base64::Engine as _;
use bytes::Bytes;
use clap::Args;
use store::RangeEnd;

use crate::failure::Failure;

/// In etcd's protocol: to the end of the key space.
const UNBOUNDED: &[u8] = &[0];

/// One key, or many.
#[derive(Debug, Args)]
pub struct StretchArgs {
    /// A key; with --prefix what keys begin with
    #[arg(value_name = "KEY")]
    key: String,
    /// All keys from KEY up to this one, without it
    #[arg(value_name = "END", conflicts_with_all = ["prefix", "from_key"])]
    end: Option<String>,
    /// All keys that begin with KEY; the empty one means all keys
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// KEY and all keys after it
    #[arg(long)]
    from_key: bool,
    /// KEY and END are written in base64
    #[arg(long)]
    base64: bool,
}

/// Keys as etcd's protocol names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub key: Bytes,
    /// Empty: the key alone. One zero byte: to the end.
    pub end: Bytes,
}

impl Stretch {
    pub fn one(&self) -> bool {
        self.end.is_empty()
    }

    /// As people would say it.
    pub fn said(&self) -> String {
        let key = self.key.escape_ascii();
        match &self.end[..] {
            [] => key.to_string(),
            UNBOUNDED if self.key[..] == *UNBOUNDED => "all keys".to_owned(),
            UNBOUNDED => format!("{key} and all after it"),
            end => format!("{key} up to {}", end.escape_ascii()),
        }
    }
}

/// The end of the keys that begin with `prefix`.
pub fn prefix(prefix: Bytes) -> Stretch {
    let range = store::Range::prefix(prefix.clone());
    let end = match range.end {
        RangeEnd::Exclusive(end) => end,
        RangeEnd::Single | RangeEnd::Unbounded => Bytes::from_static(UNBOUNDED),
    };
    // A key has at least one byte: all of them begin where the shortest is.
    let key = if prefix.is_empty() { Bytes::from_static(UNBOUNDED) } else { prefix };
    Stretch { key, end }
}

pub fn from(key: Bytes) -> Stretch {
    let key = if key.is_empty() { Bytes::from_static(UNBOUNDED) } else { key };
    Stretch { key, end: Bytes::from_static(UNBOUNDED) }
}

/// Keys from `key` up to `end`. A store would answer nothing where the two are the wrong way round.
pub fn between(key: Bytes, end: Bytes) -> Result<Stretch, Failure> {
    if key >= end {
        let message = format!("the range ends before it starts: {} .. {}", key.escape_ascii(), end.escape_ascii());
        return Err(
            Failure::usage(message).hint("the end comes after the start in the order of bytes, and is not included")
        );
    }
    one(key).map(|stretch| Stretch { end, ..stretch })
}

pub fn one(key: Bytes) -> Result<Stretch, Failure> {
    if key.is_empty() {
        return Err(Failure::usage("a key has at least one byte").hint("--prefix ''   means all keys"));
    }
    Ok(Stretch { key, end: Bytes::new() })
}

impl StretchArgs {
    pub fn read(&self) -> Result<Stretch, Failure> {
        let key = bytes("KEY", &self.key, self.base64)?;
        match &self.end {
            Some(end) => between(key, bytes("END", end, self.base64)?),
            None if self.prefix => Ok(prefix(key)),
            None if self.from_key => Ok(from(key)),
            None => one(key),
        }
    }
}

/// What an argument holds.
pub fn bytes(what: &str, text: &str, base64: bool) -> Result<Bytes, Failure> {
    if !base64 {
        return Ok(Bytes::from(text.to_owned()));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.map(Bytes::from).map_err(|error| Failure::usage(format!("{what} `{text}` is not base64: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, end: Option<&str>, prefix: bool, from_key: bool) -> Result<Stretch, Failure> {
        StretchArgs { key: key.into(), end: end.map(Into::into), prefix, from_key, base64: false }.read()
    }

    #[test]
    fn stretches_are_as_etcd_names_them() {
        let stretch = |key: &'static str, end: &'static [u8]| Stretch { key: key.into(), end: Bytes::from_static(end) };
        assert_eq!(read("a", None, false, false).unwrap(), stretch("a", b""));
        assert_eq!(read("a/", None, true, false).unwrap(), stretch("a/", b"a0"));
        assert_eq!(read("", None, true, false).unwrap(), stretch("\0", b"\0"));
        assert_eq!(read("b", None, false, true).unwrap(), stretch("b", b"\0"));
        assert_eq!(read("a", Some("c"), false, false).unwrap(), stretch("a", b"c"));
        for (key, end) in [("", None), ("b", Some("a")), ("a", Some("a")), ("a", Some(""))] {
            assert_eq!(read(key, end, false, false).unwrap_err().exit_code(), 2, "{key} {end:?}");
        }
    }
}
