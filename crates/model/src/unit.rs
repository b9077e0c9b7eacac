//! Amounts as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// An amount of memory or disk in bytes, written `512Mi` or `4Gi`. A whole number of MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// The text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an amount: write a whole number and Mi or Gi, for example {nearest}")]
pub struct InvalidSize {
    pub text: String,
    pub nearest: String,
}

impl Size {
    pub const fn mib(count: u64) -> Self {
        Self(count * MIB)
    }

    pub const fn gib(count: u64) -> Self {
        Self(count * GIB)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        let unit = &text[digits.len()..];
        let nearest = |text: &str| {
            let number: String = digits.chars().take(6).collect();
            let number = if number.is_empty() { "512" } else { &number };
            let unit = if unit.to_ascii_lowercase().trim().starts_with('g') { "Gi" } else { "Mi" };
            InvalidSize { text: text.chars().take(32).collect(), nearest: format!("{number}{unit}") }
        };
        let count: u64 = digits.parse().map_err(|_| nearest(text))?;
        let each = match unit {
            "Mi" => MIB,
            "Gi" => GIB,
            _ => return Err(nearest(text)),
        };
        count.checked_mul(each).map(Size).ok_or_else(|| nearest(text))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= GIB && self.0.is_multiple_of(GIB) {
            write!(f, "{}Gi", self.0 / GIB)
        } else {
            write!(f, "{}Mi", self.0 / MIB)
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+(Mi|Gi)$", "examples": ["512Mi"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_trip_and_wrong_units_name_the_nearest_right_one() {
        assert_eq!("512Mi".parse(), Ok(Size::mib(512)));
        assert_eq!("4Gi".parse::<Size>().unwrap().to_string(), "4Gi");
        assert_eq!(Size::mib(1536).to_string(), "1536Mi");
        assert_eq!("512MB".parse::<Size>().unwrap_err().nearest, "512Mi");
        assert_eq!("2g".parse::<Size>().unwrap_err().nearest, "2Gi");
        assert!("99999999999999999999Gi".parse::<Size>().is_err());
        assert!("18446744073709551615Gi".parse::<Size>().is_err());
        assert!("-1Mi".parse::<Size>().is_err());
        assert!("".parse::<Size>().is_err());
    }
}
