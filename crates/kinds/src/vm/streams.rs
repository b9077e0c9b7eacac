//! Logs and exec of a machine.
//!
//! Frames of `exec`, first byte first: from the caller 0x01 input (empty: end of input), 0x10 control in JSON
//! (`{"resize":{"rows","cols"}}`, `{"signal":"INT"}`, `{"close":true}`); to the caller 0x02 output, 0x03 errors,
//! 0x11 the end in JSON (`{"exit_code","signal","error"}`).

mod exec;
mod logs;

pub use exec::exec;
pub use logs::logs;
