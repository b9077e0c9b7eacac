//! One member of a replicated store.

pub mod types;
