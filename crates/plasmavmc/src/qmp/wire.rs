//! Lines and messages of the monitor's protocol.

use serde::Deserialize;
use serde_json::Value;

use super::Error;

/// The longest line taken, in bytes. The engine's commands have answers of a few hundred.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes in, lines out.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Up to here there is no end of line.
    searched: usize,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line that is not empty.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while let Some(at) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
            let mut line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
            self.searched = 0;
            while line.last().is_some_and(u8::is_ascii_whitespace) {
                line.pop();
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        self.searched = self.buffer.len();
        if self.searched > LINE_BYTES_MAX {
            return Err(Error::Malformed(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(None)
    }
}

/// What a monitor says.
#[derive(Debug)]
pub(super) enum Message {
    Greeting,
    Answer {
        id: Option<u64>,
        /// The value, or class and description.
        result: Result<Value, (String, String)>,
    },
    Event(Event),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<RawError>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct RawError {
    class: String,
    desc: String,
}

impl Message {
    pub fn parse(line: &[u8]) -> Result<Self, Error> {
        let malformed = || Error::Malformed(String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned());
        let raw: Raw = serde_json::from_slice(line).map_err(|_| malformed())?;
        match raw {
            Raw { event: Some(name), data, .. } => Ok(Message::Event(Event::read(name, &data))),
            Raw { error: Some(error), id, .. } => Ok(Message::Answer { id, result: Err((error.class, error.desc)) }),
            Raw { value: Some(value), id, .. } => Ok(Message::Answer { id, result: Ok(value) }),
            Raw { greeting: Some(_), .. } => Ok(Message::Greeting),
            _ => Err(malformed()),
        }
    }
}

/// What a monitor tells unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The machine ends. `guest`: by its own doing. `reason`: for example `guest-shutdown`, `guest-panic`, `host-qmp-quit`.
    Shutdown {
        guest: bool,
        reason: String,
    },
    /// The machine starts over.
    Reset {
        guest: bool,
    },
    /// The guest's kernel said that it is lost.
    GuestPanicked {
        action: String,
    },
    /// The virtual CPUs were halted.
    Stop,
    /// The virtual CPUs run again.
    Resume,
    Powerdown,
    /// Any other, by its name.
    Other(String),
}

impl Event {
    fn read(name: String, data: &Value) -> Self {
        let flag = |key| data.get(key).and_then(Value::as_bool).unwrap_or(false);
        let word = |key| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match name.as_str() {
            "SHUTDOWN" => Event::Shutdown { guest: flag("guest"), reason: word("reason") },
            "RESET" => Event::Reset { guest: flag("guest") },
            "GUEST_PANICKED" => Event::GuestPanicked { action: word("action") },
            "STOP" => Event::Stop,
            "RESUME" => Event::Resume,
            "POWERDOWN" => Event::Powerdown,
            _ => Event::Other(name),
        }
    }
}

/// Whether the virtual CPUs run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    Running,
    Paused,
    /// Started halted and never let run.
    Prelaunch,
    /// Waits for the state of a saved machine, or takes it.
    Incoming,
    /// Its state was written out; it is halted.
    Saved,
    Shutdown,
    /// The monitor's word.
    Other(String),
}

impl RunState {
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "running" => RunState::Running,
            "paused" => RunState::Paused,
            "prelaunch" => RunState::Prelaunch,
            "inmigrate" => RunState::Incoming,
            "postmigrate" | "finish-migrate" => RunState::Saved,
            "shutdown" => RunState::Shutdown,
            other => RunState::Other(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_bytes_arrive() {
        let mut lines = Lines::default();
        lines.push(b"\r\n{\"a\"");
        assert!(lines.next().unwrap().is_none());
        lines.push(b":1}\r\n{\"b\":2}\n{");
        assert_eq!(lines.next().unwrap().unwrap(), b"{\"a\":1}");
        assert_eq!(lines.next().unwrap().unwrap(), b"{\"b\":2}");
        assert!(lines.next().unwrap().is_none());
        lines.push(&vec![b'x'; LINE_BYTES_MAX]);
        assert!(lines.next().is_err());
    }

    #[test]
    fn every_kind_of_message_is_told_apart() {
        let event =
            Message::parse(br#"{"event":"GUEST_PANICKED","data":{"action":"poweroff"},"timestamp":{}}"#).unwrap();
        assert!(matches!(event, Message::Event(Event::GuestPanicked { action }) if action == "poweroff"));
        assert!(matches!(Message::parse(br#"{"QMP":{}}"#).unwrap(), Message::Greeting));
        assert!(matches!(Message::parse(br#"{"return":{}}"#).unwrap(), Message::Answer { id: None, result: Ok(_) }));
        assert!(Message::parse(b"{}").is_err());
        assert!(Message::parse(b"[1]").is_err());
    }
}
