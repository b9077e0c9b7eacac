//! Members talk to each other: questions and answers over streams of bytes.
//!
//! ```text
//!   Link (one for each peer and lane) ──▶ Network ──▶ TLS ──▶ greeting ──▶ frames ──▶ serve ──▶ Service
//! ```
//!
//! One task for each link, two for each open connection on either side, and one for each question that is being
//! answered.

pub mod address;
pub mod book;
pub mod fault;
pub mod frame;
pub mod greeting;
pub mod link;
pub mod network;
pub mod pace;
pub mod serve;
pub mod tls;
pub mod wire;
