//! What a machine's host and its PID 1 say to each other.
//!
//! ```text
//!   host                                 guest
//!    | quiet bytes, hello {nonce}  -->     |   everything the guest held for an older host is dropped
//!    |   <--  quiet bytes, hello {nonce}   |   everything before this nonce is noise to the host
//!    | config  -->           <--  ack      |   once per boot; a host that comes back skips it
//!    |   <--  events, log lines            |   numbered, so that a host that comes back resumes
//!    | exec open, data, credit  <-->       |   many streams at once, each within its window
//!    | shutdown {grace}  -->               |   the machine powers off
//!    | prepare_template  -->  <-- prepared |   before any config; the machine is saved and others go on from it
//! ```
//!
//! The bytes run over a virtio-serial port named [`PORT`]; nothing here knows that. Control messages are JSON
//! ([`ToGuest`], [`ToHost`]), data is raw. This module needs neither tokio nor any other crate of the cloud, because
//! PID 1 is built from it.

mod config;
mod crc;
mod decode;
mod frame;
mod message;
#[cfg(test)]
mod tests;

pub use config::{Config, Disk, Health, HealthKind, Hidden, Network, Process, Restart, RestartPolicy, V4, V6};
pub use crc::crc32;
pub use decode::{Decoder, Noise};
pub use frame::{FLAG_MORE, FLAG_PARTIAL, Frame, HEADER_LEN, Kind, LogLine, LogStream, Malformed, encode, preamble};
pub use message::{
    Event, ExecOpen, Exit, FailureCode, HelloGuest, HelloHost, Numbered, Phase, Pty, State, Stats, ToGuest, ToHost,
    negotiate,
};

/// The name of the virtio-serial port that carries this protocol.
pub const PORT: &str = "vt.guest";
/// The oldest protocol this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest protocol this build speaks. 2: templates.
pub const PROTOCOL_MAX: u32 = 2;
/// The largest payload of one frame, in bytes. A full pipe's read fits, and the quiet preamble stays cheap.
pub const PAYLOAD_MAX: usize = 32 * 1024;
/// The largest control message, in bytes, over all its frames: a full secrets file, escaped, with room to spare.
pub const CONTROL_MAX: usize = 1024 * 1024;
/// The longest piece of a log line in one frame, in bytes; longer lines are cut and marked partial.
pub const LOG_LINE_MAX: usize = 16 * 1024;
/// What a line counts for in the window beside its own bytes, so that empty lines are bounded too.
pub const LOG_LINE_OVERHEAD: usize = 64;
/// Unacknowledged log bytes that the guest sends before it waits for [`ToGuest::LogsAck`].
pub const LOG_WINDOW: usize = 256 * 1024;
/// Bytes either side may send on an exec stream before the other grants more by a credit message.
pub const EXEC_WINDOW: u32 = 128 * 1024;
/// Exec sessions that a guest runs at once.
pub const EXEC_MAX: usize = 32;
