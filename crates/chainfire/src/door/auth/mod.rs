//! Who may do what.
//!
//! Users and roles are system rows. Each request is judged on a [`View`] of them; a change carries the rows' version, so
//! that the state machine refuses it when they have moved in between.

pub mod grants;
mod password;
pub mod rows;
mod service;
pub mod token;
pub mod view;

pub use view::{Caller, View};
