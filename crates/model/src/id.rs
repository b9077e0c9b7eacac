//! Ids: a kind's prefix and a UUID v7 in Crockford's base 32, for example `vm_01J9ZP5K3W8Q7R2T4V6X8Y0A1B`.
//!
//! They sort by time of creation. The prefix of each kind stands in its contract; ids without a kind are listed here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters after the underscore: 128 bits, five at a time.
const BODY_CHARS: usize = 26;
const PREFIX_CHARS_MAX: usize = 8;

/// Prefix of request ids.
pub const REQUEST: &str = "req";
/// Prefix of event ids.
pub const EVENT: &str = "ev";

/// An immutable id. Compares and sorts as its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(std::sync::Arc<str>);

/// The text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected a prefix, `_` and 26 characters, for example vm_01J9ZP5K3W8Q7R2T4V6X8Y0A1B")]
pub struct InvalidId(pub String);

impl Id {
    /// A new id from the current time and the system's randomness.
    pub fn new(prefix: &str) -> Self {
        Self::from_bits(prefix, uuid::Uuid::now_v7().as_u128())
    }

    /// The id with these 128 bits; for tests and for ids derived from a digest.
    pub fn from_bits(prefix: &str, bits: u128) -> Self {
        let mut body = [0_u8; BODY_CHARS];
        for (place, out) in body.iter_mut().enumerate() {
            let shift = 5 * (BODY_CHARS - 1 - place);
            *out = ALPHABET[(bits >> shift) as usize & 31];
        }
        let body = std::str::from_utf8(&body).expect("the alphabet is ASCII");
        Self(format!("{prefix}_{body}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the underscore.
    pub fn prefix(&self) -> &str {
        self.0.split_once('_').map_or("", |(prefix, _)| prefix)
    }

    /// The last characters, enough to tell things apart on one screen.
    pub fn short(&self) -> &str {
        &self.0[self.0.len() - 6..]
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(64).collect());
        let (prefix, body) = text.split_once('_').ok_or_else(invalid)?;
        let prefix_ok = !prefix.is_empty()
            && prefix.len() <= PREFIX_CHARS_MAX
            && prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let body_ok = body.len() == BODY_CHARS && body.bytes().all(|byte| ALPHABET.contains(&byte));
        if prefix_ok && body_ok { Ok(Self(text.into())) } else { Err(invalid()) }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Id {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9]{1,8}_[0-9A-HJKMNP-TV-Z]{26}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_sort_by_time() {
        let first = Id::new("vm");
        std::thread::yield_now();
        let later = Id::from_bits("vm", uuid::Uuid::now_v7().as_u128() + (1 << 100));
        assert!(first < later);
        assert_eq!(first.prefix(), "vm");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "vm",
            "vm_",
            "vm_01",
            "VM_01J9ZP5K3W8Q7R2T4V6X8Y0A1B",
            "vm_01J9ZP5K3W8Q7R2T4V6X8Y0A1I",
            "vm_../../etc/passwd/aaaaaaaaaaa",
        ] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bits: u128) {
            let id = Id::from_bits("app", bits);
            prop_assert_eq!(id.as_str().parse::<Id>().unwrap(), id);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = text.parse::<Id>();
        }
    }
}
