//! What one engine is told once, when it is opened.

use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::{Names, Prefixes};
use crate::error::Error;

/// RFC 8200, section 5: no IPv6 link may carry less.
pub const MTU_MIN: u32 = 1280;
pub const MTU_MAX: u32 = 9000;
/// Leaves room for the overlay's header on a link of 1500.
pub const MTU_DEFAULT: u32 = 1420;

/// One engine's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 4 to 6 lower-case hexadecimal digits, in every device's and table's name. Two engines on one machine differ here.
    pub tag: String,
    /// A folder of the engine's own; made when missing.
    pub state_dir: PathBuf,
    /// Where IPv4 networks are cut from.
    #[serde(default = "default_v4")]
    pub v4: Ipv4Net,
    /// Where IPv6 networks are cut from: a unique local /48 that this cloud chose at random (RFC 4193, section 3.2).
    pub v6: Ipv6Net,
    /// Whether guests may open connections to the outside.
    #[serde(default = "default_egress")]
    pub egress: bool,
    /// Of every bridge and tap, in bytes, 1280 to 9000.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
}

/// 10.240.0.0/12.
pub fn default_v4() -> Ipv4Net {
    Ipv4Net::new_assert([10, 240, 0, 0].into(), 12)
}

fn default_egress() -> bool {
    true
}

fn default_mtu() -> u32 {
    MTU_DEFAULT
}

impl Config {
    /// Defaults for all that has one.
    pub fn new(tag: impl Into<String>, state_dir: impl Into<PathBuf>, v6: Ipv6Net) -> Self {
        Self {
            tag: tag.into(),
            state_dir: state_dir.into(),
            v4: default_v4(),
            v6,
            egress: default_egress(),
            mtu: default_mtu(),
        }
    }

    pub fn prefixes(&self) -> Prefixes {
        Prefixes { v4: self.v4.trunc(), v6: self.v6.trunc() }
    }

    /// # Errors
    /// [`Error::ConfigTag`].
    pub fn names(&self) -> Result<Names, Error> {
        Names::new(&self.tag)
    }

    /// # Errors
    /// [`Error::ConfigTag`], [`Error::ConfigPrefix`], [`Error::ConfigMtu`]: whoever wrote the configuration mends them.
    pub fn check(&self) -> Result<(), Error> {
        self.names()?;
        self.prefixes().check()?;
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            return Err(Error::ConfigMtu { mtu: self.mtu });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_file_gets_the_defaults_and_an_unknown_key_is_refused() {
        let text = r#"{"tag":"00ab","state_dir":"/tmp/x","v6":"fd00:1:2::/48"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config, Config::new("00ab", "/tmp/x", "fd00:1:2::/48".parse().unwrap()));
        assert!(config.check().is_ok());
        let text = r#"{"tag":"00ab","state_dir":"/tmp/x","v6":"fd00:1:2::/48","mtuu":1}"#;
        assert!(serde_json::from_str::<Config>(text).is_err());
        let narrow = Config { mtu: 1279, ..config };
        assert!(matches!(narrow.check(), Err(Error::ConfigMtu { mtu: 1279 })));
    }
}
