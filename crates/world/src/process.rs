//! Programs run to their end: an argument vector, bounded output, a deadline.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The most that is kept of a program's output, each stream. The rest is read and dropped.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{program} is not installed")]
    Missing { program: String },
    #[error("{program} could not be started: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} did not end within {seconds} s")]
    Deadline { program: String, seconds: u64 },
    #[error("{program} failed ({status}): {stderr}")]
    Failed { program: String, status: String, stderr: String },
}

/// One run of a program.
#[derive(Debug)]
pub struct Run {
    program: String,
    arguments: Vec<OsString>,
    input: Option<Vec<u8>>,
    deadline: Duration,
}

impl Run {
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), input: None, deadline: Duration::from_mins(1) }
    }

    pub fn args<I: IntoIterator<Item = A>, A: Into<OsString>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Bytes for its standard input; without, it has none.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs to the end and returns its standard output. Killed when the deadline passes or the future is dropped.
    pub async fn output(self) -> Result<Vec<u8>, Error> {
        let program = self.program;
        let mut command = Command::new(&program);
        command.args(&self.arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { program: program.clone() },
            _ => Error::Start { program: program.clone(), source },
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, self.input) {
                // A program that ends without reading its input says why in its own status.
                let _ = stdin.write_all(&input).await;
            }
        };
        let work = async { tokio::join!(feed, bounded(stdout), bounded(stderr), child.wait()) };
        let Ok(((), stdout, stderr, status)) = tokio::time::timeout(self.deadline, work).await else {
            return Err(Error::Deadline { program, seconds: self.deadline.as_secs() });
        };
        let status = status.map_err(|source| Error::Start { program: program.clone(), source })?;
        if status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(Error::Failed { program, status: status.to_string(), stderr })
    }
}

async fn bounded(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_failure_and_absence_are_told_apart() {
        let out = Run::new("cat").input(*b"hello").output().await.unwrap();
        assert_eq!(out, b"hello");
        assert!(matches!(Run::new("false").output().await, Err(Error::Failed { .. })));
        assert!(matches!(Run::new("no-such-program-here").output().await, Err(Error::Missing { .. })));
        let slow = Run::new("sleep").args(["60"]).deadline(Duration::from_millis(50));
        assert!(matches!(slow.output().await, Err(Error::Deadline { .. })));
    }
}
