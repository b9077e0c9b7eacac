//! The control plane as callers meet it: over TLS, on loopback, with kinds made for the purpose.

mod cloud;
mod input;
mod kinds;
mod limits;
mod once;
mod place;
mod rows;
mod service;
mod streams;
mod tenancy;
mod watch;
