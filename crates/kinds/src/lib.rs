//! The nouns: every resource kind, one folder each, one line in the registry.
//!
//! ```text
//! cloud    org  node  token
//! org      project  (token)
//! project  app  keyspace  (token)
//! app      env  release
//! env      deploy  vm  route  secret
//! ```
//!
//! Kinds meet through rows, never by calling each other: a deploy's plan makes vm rows, a route's plan reads vm rows,
//! a vm's plan reads route rows. `contract.rs` says what a kind is, `plan.rs` decides and is pure, `realize.rs` acts.

pub mod app;
pub mod deploy;
pub mod engines;
pub mod env;
pub mod images;
pub mod keyspace;
mod network;
pub mod node;
pub mod org;
pub mod project;
pub mod release;
pub mod route;
mod scopes;
pub mod secret;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod token;
pub mod vm;

use std::sync::Arc;

use iam::Sealer;
use reconcile::{Kind, Registry};

pub use engines::Engines;
pub use keyspace::Spaces;
pub use settings::Settings;

/// Every kind there is. Without `engines` the kinds are described and decided on, and nothing runs here.
pub fn registry(settings: Settings, sealer: Option<Arc<Sealer>>, engines: Option<Engines>, spaces: Spaces) -> Registry {
    let kinds: Vec<Arc<dyn Kind>> = vec![
        Arc::new(org::Org),
        Arc::new(project::Project),
        Arc::new(app::App),
        Arc::new(env::Env),
        Arc::new(release::Release { images: engines.as_ref().map(|engines| engines.images.clone()) }),
        Arc::new(deploy::Deploy { settings: settings.clone() }),
        Arc::new(vm::Vm::new(engines.clone())),
        Arc::new(route::Route {
            settings,
            ingress: engines.as_ref().map(|engines| engines.ingress.clone()),
            applied: parking_lot::Mutex::default(),
        }),
        Arc::new(secret::Secret { sealer }),
        Arc::new(node::Node { engines }),
        Arc::new(token::Token),
        Arc::new(keyspace::Keyspace { spaces }),
    ];
    Registry::new(kinds)
}
