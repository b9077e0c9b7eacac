//! The machines an image can be for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A guest's processor. The operating system is always Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Platform {
    #[serde(rename = "linux/amd64")]
    LinuxAmd64,
    #[serde(rename = "linux/arm64")]
    LinuxArm64,
}

impl Platform {
    /// What this machine runs without emulating another processor.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Platform::LinuxArm64 } else { Platform::LinuxAmd64 }
    }

    /// The word of the OCI image specification.
    pub const fn architecture(self) -> &'static str {
        match self {
            Platform::LinuxAmd64 => "amd64",
            Platform::LinuxArm64 => "arm64",
        }
    }

    pub const fn os(self) -> &'static str {
        "linux"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os(), self.architecture())
    }
}

/// The text names no platform that a guest can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: write linux/amd64 or linux/arm64")]
pub struct InvalidPlatform(pub String);

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        match text {
            "linux/amd64" | "amd64" => Ok(Platform::LinuxAmd64),
            "linux/arm64" | "arm64" | "linux/arm64/v8" => Ok(Platform::LinuxArm64),
            other => Err(InvalidPlatform(other.chars().take(40).collect())),
        }
    }
}
