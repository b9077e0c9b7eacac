//! Where each setting comes from: flag, then `VT_*`, then the manifest, then the context, then the default.
//!
//! ```text
//! file      ~/.config/vt/config.toml or $VT_CONFIG: contexts, each the address of a cloud and how to speak to it
//! settings  every setting with its value and its origin, read once
//! ```

mod file;
mod settings;

pub use file::{Context, path, save};
pub use settings::{Flags, Settings};
