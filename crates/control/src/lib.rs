//! The control plane: the HTTP API, the scheduler, and the loop of the kinds that live here. Names no kind.
//!
//! ```text
//!   TLS listener      serve.rs        one task a connection
//!     -> routes       routes.rs       the ONE table: router, OpenAPI document and tests are made from it
//!     -> call         api/call.rs     who asks, may they, is it well formed; then the handler
//!     -> handlers     api/...         rows, watches, streams, blobs, answers about the cloud itself
//!     -> Door         (reconcile)     the only door for intent
//!
//!   scheduler task    schedule/       a row with a demand and no node -> a node
//!   loop task         (reconcile)     the turns of kinds with Place::Control
//!   renewal task      service.rs      the server certificate at half its life
//! ```

mod api;
mod config;
mod error;
mod metrics;
mod openapi;
mod routes;
mod schedule;
mod serve;
mod service;
mod uploads;

pub use config::{Config, Limits};
pub use error::Error;
pub use openapi::openapi;
pub use routes::{Action, Form, Guard, Parameter, Payload, Route, routes};
pub use schedule::{Decision, place};
pub use service::{Handle, Parts, Provider, Service};
pub use uploads::{Body, Uploads};
