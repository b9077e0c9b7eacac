//! The world outside the program: time, randomness, files, processes.
//!
//! Everything above asks here instead of the standard library, so that a test can hand in a simulated
//! clock and a seeded source, and so that the rules for durable files live in one place.
//!
//! ```text
//! clock    Clock::real() | Clock::simulated()      wall time in ns, monotonic time, sleep
//! random   fill, token                             the system's secure source
//! file     write_atomic, read_optional             temp -> fsync -> rename -> fsync of the folder
//! process  Run                                     argument vectors, bounded output, a deadline
//! ```

pub mod clock;
pub mod file;
pub mod process;
pub mod random;

pub use clock::Clock;
