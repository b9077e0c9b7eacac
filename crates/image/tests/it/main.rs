//! The crate against real tools, a real registry and a real kernel.

mod fuzz;
mod hostile;
mod layers;
mod refusals;
mod registry;
mod sources;
mod store;
mod support;
mod uploads;
