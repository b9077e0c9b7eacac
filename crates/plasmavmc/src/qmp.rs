//! The machine monitor's protocol, typed: the few commands the engine uses, and its events.
//!
//! ```text
//!   connect: greeting -> qmp_capabilities -> ready
//!   one task owns the socket: commands go out numbered, answers find their caller by number, events go to a queue
//! ```
//!
//! Source: QEMU's docs/interop/qmp-spec.rst and qapi schema, 7.2.

mod wire;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

pub use wire::{Event, RunState};
use wire::{Lines, Message};

/// A monitor that does not answer for this long counts as hung.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a state that is being written or taken.
const TRANSFER_LOOK: Duration = Duration::from_millis(1);
/// Commands that wait for their turn.
const COMMANDS_MAX: usize = 16;
/// Events that wait to be taken; more are dropped, oldest kept.
const EVENTS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the monitor's socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("the monitor closed its socket")]
    Closed,
    #[error("the monitor did not answer {command} within {seconds} s")]
    Deadline { command: &'static str, seconds: u64 },
    #[error("the monitor refused {command}: {class}: {description}")]
    Refused { command: &'static str, class: String, description: String },
    #[error("the machine's state was not transferred: {why}")]
    Transfer { why: String },
    #[error("the monitor sent what is not its protocol: {0}")]
    Malformed(String),
}

/// A monitor that has greeted. Clones share the connection; it closes with the last one.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Command {
    name: &'static str,
    arguments: Option<Value>,
    /// Handed over together with the command.
    file: Option<OwnedFd>,
    answer: oneshot::Sender<Result<Value, Error>>,
}

impl Client {
    /// Takes the greeting and leaves the negotiation mode. The queue ends when the monitor is gone.
    pub async fn connect(stream: UnixStream) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        let mut link = Link { stream, lines: Lines::default(), next: 0, waiting: HashMap::new() };
        let greeting = async {
            loop {
                match link.receive().await? {
                    Message::Greeting => return Ok(()),
                    // What an earlier client left unread may come first.
                    Message::Event(_) | Message::Answer { .. } => {}
                }
            }
        };
        let late = Error::Deadline { command: "greeting", seconds: ANSWER_DEADLINE.as_secs() };
        timeout(ANSWER_DEADLINE, greeting).await.unwrap_or(Err(late))?;
        let (commands, requests) = mpsc::channel(COMMANDS_MAX);
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(link.run(requests, events));
        let client = Self { commands };
        client.execute("qmp_capabilities", None).await?;
        Ok((client, queue))
    }

    pub async fn status(&self) -> Result<RunState, Error> {
        let value = self.execute("query-status", None).await?;
        let word = value.get("status").and_then(Value::as_str);
        word.map(RunState::from_word).ok_or_else(|| Error::Malformed(format!("query-status: {value}")))
    }

    /// Halts the virtual CPUs. No effect on a machine that is halted.
    pub async fn stop(&self) -> Result<(), Error> {
        self.execute("stop", None).await.map(drop)
    }

    /// Lets the virtual CPUs run.
    pub async fn cont(&self) -> Result<(), Error> {
        self.execute("cont", None).await.map(drop)
    }

    /// Presses the power button; what follows is the guest's affair.
    pub async fn system_powerdown(&self) -> Result<(), Error> {
        self.execute("system_powerdown", None).await.map(drop)
    }

    /// Ends the process. The socket may close before the answer; that counts as done.
    pub async fn quit(&self) -> Result<(), Error> {
        match self.execute("quit", None).await {
            Ok(_) | Err(Error::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// True when KVM runs the guest, false under software emulation.
    pub async fn kvm(&self) -> Result<bool, Error> {
        let value = self.execute("query-kvm", None).await?;
        value.get("enabled").and_then(Value::as_bool).ok_or_else(|| Error::Malformed(format!("query-kvm: {value}")))
    }

    /// Writes the halted machine's state to `file`: its devices, and its memory unless that is a file of its own already.
    /// The machine stays halted, and may be let run again.
    pub async fn save(&self, file: OwnedFd) -> Result<(), Error> {
        self.memory_stays_where_it_is().await?;
        let most = i64::MAX as u64;
        self.execute("migrate-set-parameters", Some(json!({ "max-bandwidth": most }))).await?;
        let name = "state";
        self.send("getfd", Some(json!({ "fdname": name })), Some(file)).await?;
        self.execute("migrate", Some(json!({ "uri": format!("fd:{name}") }))).await?;
        loop {
            let info = self.execute("query-migrate", None).await?;
            match info.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") | None => {
                    let why = info.get("error-desc").and_then(Value::as_str).unwrap_or("no reason given");
                    return Err(Error::Transfer { why: why.to_owned() });
                }
                Some(_) => sleep(TRANSFER_LOOK).await,
            }
        }
    }

    /// Takes the state of a saved machine from `file`, by its number in the monitor's process. The machine stays halted.
    /// A state that the monitor cannot take ends its process.
    pub async fn load(&self, file: RawFd) -> Result<(), Error> {
        self.memory_stays_where_it_is().await?;
        self.execute("migrate-incoming", Some(json!({ "uri": format!("fd:{file}") }))).await?;
        while self.status().await? == RunState::Incoming {
            sleep(TRANSFER_LOOK).await;
        }
        Ok(())
    }

    async fn memory_stays_where_it_is(&self) -> Result<(), Error> {
        let wanted = json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] });
        self.execute("migrate-set-capabilities", Some(wanted)).await.map(drop)
    }

    /// Any command; the answer's `return`.
    pub async fn execute(&self, name: &'static str, arguments: Option<Value>) -> Result<Value, Error> {
        self.send(name, arguments, None).await
    }

    async fn send(&self, name: &'static str, arguments: Option<Value>, file: Option<OwnedFd>) -> Result<Value, Error> {
        let (answer, answered) = oneshot::channel();
        let work = async {
            self.commands.send(Command { name, arguments, file, answer }).await.map_err(|_| Error::Closed)?;
            answered.await.map_err(|_| Error::Closed)?
        };
        let late = Error::Deadline { command: name, seconds: ANSWER_DEADLINE.as_secs() };
        timeout(ANSWER_DEADLINE, work).await.unwrap_or(Err(late))
    }
}

type Waiting = (&'static str, oneshot::Sender<Result<Value, Error>>);

struct Link {
    stream: UnixStream,
    lines: Lines,
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

impl Link {
    async fn run(mut self, mut requests: mpsc::Receiver<Command>, events: mpsc::Sender<Event>) {
        loop {
            tokio::select! {
                command = requests.recv() => match command {
                    Some(command) => if self.send(command).await.is_err() { return },
                    None => return,
                },
                message = self.receive() => match message {
                    Ok(Message::Answer { id, result }) => self.answer(id, result),
                    Ok(Message::Event(event)) => {
                        if events.try_send(event).is_err() {
                            tracing::warn!("a monitor's event was dropped: nobody takes them");
                        }
                    }
                    Ok(Message::Greeting) => {}
                    Err(error) => {
                        if !matches!(error, Error::Closed) {
                            tracing::debug!(%error, "a monitor's connection ended");
                        }
                        return;
                    }
                },
            }
        }
    }

    async fn send(&mut self, command: Command) -> io::Result<()> {
        self.next += 1;
        // Callers that gave up are forgotten here, so that the table stays as small as the callers are few.
        self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        let mut message = json!({ "execute": command.name, "id": self.next });
        if let (Some(arguments), Some(fields)) = (command.arguments, message.as_object_mut()) {
            fields.insert("arguments".to_owned(), arguments);
        }
        self.waiting.insert(self.next, (command.name, command.answer));
        let mut line = message.to_string();
        line.push('\n');
        match command.file {
            None => self.stream.write_all(line.as_bytes()).await,
            Some(file) => self.write_with(line.as_bytes(), &file).await,
        }
    }

    /// The descriptor goes with the first byte.
    async fn write_with(&mut self, line: &[u8], file: &OwnedFd) -> io::Result<()> {
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            let descriptors = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let pieces = [IoSlice::new(line)];
            Ok(sendmsg(&self.stream, &pieces, &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        let sent = sent.await?;
        self.stream.write_all(&line[sent..]).await
    }

    fn answer(&mut self, id: Option<u64>, result: Result<Value, (String, String)>) {
        let Some((command, answer)) = id.and_then(|id| self.waiting.remove(&id)) else { return };
        let result = result.map_err(|(class, description)| Error::Refused { command, class, description });
        let _ = answer.send(result);
    }

    /// The next message. Loses nothing when dropped half way: what was read stays in `lines`.
    async fn receive(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(line) = self.lines.next()? {
                return Message::parse(&line);
            }
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(Error::Closed);
            }
            self.lines.push(&buffer[..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"major":7}},"capabilities":[]}}"#;

    /// A monitor played by a script: for each line taken, lines given.
    fn monitor(script: Vec<&'static str>) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            theirs.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
            for reply in script {
                let mut taken = Vec::new();
                while taken.last() != Some(&b'\n') {
                    taken.push(theirs.read_u8().await.unwrap());
                }
                // In small pieces: the reader may count on nothing.
                for piece in reply.as_bytes().chunks(3) {
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        ours
    }

    #[tokio::test]
    async fn answers_find_their_caller_and_events_their_queue() {
        let shutdown = r#"{"timestamp":{"seconds":1,"microseconds":2},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}"#;
        let reply: &'static str =
            format!("{shutdown}\n{{\"return\":{{\"status\":\"running\",\"running\":true}},\"id\":2}}\n").leak();
        let refusal = "{\"id\":3,\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n";
        let stream = monitor(vec!["{\"return\":{},\"id\":1}\r\n", reply, refusal]);
        let (client, mut events) = Client::connect(stream).await.unwrap();
        assert_eq!(client.status().await.unwrap(), RunState::Running);
        assert_eq!(events.recv().await, Some(Event::Shutdown { guest: true, reason: "guest-shutdown".to_owned() }));
        let refused = client.cont().await.unwrap_err();
        assert_eq!(refused.to_string(), "the monitor refused cont: GenericError: no");
        // The script is over and the socket closes.
        assert!(client.quit().await.is_ok());
        assert!(matches!(client.stop().await, Err(Error::Closed)));
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test]
    async fn what_is_not_the_protocol_is_named() {
        let stream = monitor(vec!["not json\n"]);
        assert!(Client::connect(stream).await.is_err());
    }
}
