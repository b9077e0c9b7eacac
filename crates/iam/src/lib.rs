//! Who is asking, what they may touch, and the keys that keep it so.
//!
//! ```text
//!   Authorization: Bearer vt_at_...
//!     -> token      token.rs      text -> SHA-256 -> claim -> row -> Principal
//!     -> authorise  principal.rs  the principal's scope against the row's scope
//!
//!   ca/             the cloud's own authority; server certificates made and renewed, taken into use without a restart
//!   seal.rs         envelope encryption of what no row and no event may hold
//! ```
//!
//! No task runs here: whoever serves asks [`Ca::renew_if_due`] now and then.

mod ca;
mod error;
mod principal;
mod seal;
pub mod token;

pub use ca::{Ca, client_config};
pub use error::Error;
pub use principal::{Principal, Verb, authorise, authorise_row};
pub use seal::Sealer;
pub use token::authenticate;
