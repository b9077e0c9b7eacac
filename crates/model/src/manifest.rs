//! `vt.toml`, version v1.
