//! The door, the log, the loop: over the engine in memory, with a kind of its own.

mod command;
mod log;
mod outage;
mod toy;
mod turn;
