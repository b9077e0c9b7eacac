//! PostgreSQL as a store: one ordered table of revisions, in a schema of its own.
//!
//! Any number of processes may have the same schema open; each is correct without knowing of the others. What orders
//! them is one row, `head`: a writing transaction locks it first, so revisions are taken in the order of commits and a
//! reader that has seen revision N has seen all before it.
//!
//! ```text
//!   caller ── range ─────────────▶ pool: one statement, so one snapshot
//!          ── txn, lease_*, compact ──▶ queue ──▶ writer: all that wait in one transaction of the database
//!                                                  lock head, load what they touch     (first round trip)
//!                                                  store::apply in memory
//!                                                  write the difference, COMMIT, NOTIFY (second)
//!                                                     │
//!   watchers ◀── feed ◀── follower: in revision order ◀┴─ its own commits, NOTIFY, a timer ── the table
//!
//!   keeper: leases that ran out, space of compacted revisions; in one process at a time, by an advisory lock
//! ```
//!
//! [`Address`] is the URL; [`Postgres::open`] makes or checks the schema ([`schema`]) and starts three tasks: the
//! writer, the follower, the keeper. Every session is set up by [`session`], which also says what its errors mean.

mod address;
mod columns;
mod draft;
mod engine;
mod error;
mod follower;
mod keeper;
mod load;
mod past;
mod pool;
mod range;
mod schema;
mod session;
mod shared;
mod sql;
mod tls;
mod wanted;
mod writer;

pub use address::{Address, SslMode};
pub use engine::Postgres;
pub use error::OpenError;
pub use schema::FORMAT;
