//! A tar reader for archives that nobody vouches for.
//!
//! ```text
//! header    one 512-byte block: numbers, name, kind
//! extension what precedes it: pax records, GNU long names; each bounded
//! sparse    the four ways to write a file with holes, brought to one map
//! reader    blocks -> members, and a member's data as a stream
//! ```
//!
//! It reads POSIX ustar and pax (IEEE 1003.1, `pax` interchange format), GNU and old v7 archives. It never allocates
//! by a number that the archive states, and it never panics.

mod extension;
mod header;
mod reader;
mod sparse;

pub use header::Kind;
pub use reader::{Member, Reader};

/// Why an archive cannot be read, and at which member. The member may be empty: the fault lies before its name.
#[derive(Debug)]
pub struct Problem {
    pub member: String,
    pub problem: String,
    /// Where the bytes themselves could not be read, not their meaning.
    pub source: Option<std::io::Error>,
}

impl Problem {
    fn new(member: &[u8], problem: impl Into<String>) -> Self {
        Self { member: show(member), problem: problem.into(), source: None }
    }

    fn read(member: &[u8], error: std::io::Error) -> Self {
        let problem = if error.kind() == std::io::ErrorKind::UnexpectedEof {
            "is cut off".to_owned()
        } else {
            format!("cannot be read: {error}")
        };
        Self { member: show(member), problem, source: Some(error) }
    }
}

/// A name for people: bounded, control characters escaped.
pub fn show(name: &[u8]) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    String::from_utf8_lossy(name).chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}
