//! The real program, as people and scripts meet it.
//!
//! ```text
//! offline   what works without a cloud: help, explain, manifests, completion, refusals
//! store     `vt kv` and `vt store` at ChainFire and at the real etcd
//! run       one run of the program in a folder of its own, nothing inherited from the caller's settings
//! ```

mod help;
mod manifest;
mod offline;
mod run;
mod store;
