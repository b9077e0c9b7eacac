//! Finding the guest, saying hello, and the acts on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::guest::{
    Config, Decoder, ExecOpen, HelloGuest, HelloHost, PROTOCOL_MAX, PROTOCOL_MIN, Phase, State, Stats, ToGuest, ToHost,
    negotiate, preamble,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::read::{self, READ_MAX};
use super::session::{self, Session};
use super::shared::{ANSWER_SECONDS, Answer, FRAMES_MAX, Shared};
use super::{Error, Events, Logs};

/// For what was sent before the socket broke.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Between two looks for a socket that is not there yet.
const CONNECT_POLL: Duration = Duration::from_millis(5);
const NONCE_BYTES: usize = 16;
/// From the guest's hello to its acknowledgement of the configuration.
const HANDSHAKE_SECONDS: u64 = 5;

/// A connection to one guest. Clones share it; the last one dropped detaches and leaves the guest running.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    hello: Arc<HelloGuest>,
    protocol: u32,
    _tasks: Arc<Tasks>,
}

struct Tasks([AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// When the read or the write task ends, however it ends, those who wait are told.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("detached".to_owned());
    }
}

impl Channel {
    /// Opens the socket, waits for the guest to come up, and agrees on a protocol, all within `deadline`.
    ///
    /// The guest may be booting still, or have run for long: [`Channel::hello`] says whether it has its configuration.
    ///
    /// # Errors
    /// `Connect` when the socket is not there in time, `Silent` when the guest says nothing, `ProtocolMismatch`,
    /// `Closed` when the machine ended meanwhile.
    pub async fn connect(path: &Path, deadline: Duration) -> Result<Self, Error> {
        let seconds = deadline.as_secs();
        let end = tokio::time::Instant::now() + deadline;
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(CONNECT_POLL).await,
                Err(source) => return Err(Error::Connect { path: path.to_owned(), source }),
            }
        };
        let shaken = tokio::time::timeout_at(end, Self::shake(stream));
        shaken.await.unwrap_or(Err(Error::Silent { seconds }))
    }

    /// As [`Channel::connect`], over a socket that is connected already.
    pub async fn over(stream: UnixStream, deadline: Duration) -> Result<Self, Error> {
        let seconds = deadline.as_secs();
        let shaken = tokio::time::timeout(deadline, Self::shake(stream));
        shaken.await.unwrap_or(Err(Error::Silent { seconds }))
    }

    async fn shake(stream: UnixStream) -> Result<Self, Error> {
        let (mut reader, mut writer) = stream.into_split();
        let nonce = world::random::hex(NONCE_BYTES);
        let mut bytes = Vec::new();
        preamble(&mut bytes);
        let hello = HelloHost { nonce: nonce.clone(), protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX };
        ToGuest::Hello(hello).encode(&mut bytes).map_err(|error| Error::TooLarge { why: error.to_string() })?;
        let mut decoder = Decoder::new();
        // The guest may have much to say before it listens, so both directions must move.
        let write = async {
            writer.write_all(&bytes).await.map_err(|error| Error::Closed { why: error.to_string() })?;
            Ok::<_, Error>(())
        };
        let (hello, ()) = tokio::try_join!(await_hello(&mut reader, &mut decoder, &nonce), write)?;
        let protocol = negotiate(hello.protocol_min, hello.protocol_max).ok_or(Error::ProtocolMismatch {
            guest_min: hello.protocol_min,
            guest_max: hello.protocol_max,
            host_min: PROTOCOL_MIN,
            host_max: PROTOCOL_MAX,
        })?;
        Ok(Self::start(reader, writer, decoder, hello, protocol))
    }

    fn start(
        reader: OwnedReadHalf,
        writer: OwnedWriteHalf,
        decoder: Decoder,
        hello: HelloGuest,
        protocol: u32,
    ) -> Self {
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        let shared = Arc::new(Shared::new(frames, hello.state.clone(), hello.boot_id.clone()));
        // The guest's own ring of events: those before the hello are in its state already.
        shared.try_send(&ToGuest::EventsFrom { seq: 0 });
        let folded = hello.state.event_next;
        let guard = CloseOnDrop(Arc::clone(&shared));
        let read = tokio::spawn(async move {
            let mut closed = guard.0.closed.subscribe();
            let why = tokio::select! {
                why = read::run(&guard.0, reader, decoder, folded) => why,
                _ = closed.wait_for(Option::is_some) => return,
            };
            guard.0.close(why);
        });
        let guard = CloseOnDrop(Arc::clone(&shared));
        let write = tokio::spawn(async move {
            let mut closed = guard.0.closed.subscribe();
            // Both halves go together, else the guest would write into a socket that nobody reads.
            let why = tokio::select! {
                why = write_all(writer, queue) => why,
                _ = closed.wait_for(Option::is_some) => return,
            };
            // A machine that ended may have left its last words to be read.
            let _ = tokio::time::timeout(LAST_WORDS, closed.wait_for(Option::is_some)).await;
            guard.0.close(why);
        });
        let tasks = Tasks([read.abort_handle(), write.abort_handle()]);
        Self { shared, hello: Arc::new(hello), protocol, _tasks: Arc::new(tasks) }
    }

    /// The guest's first words on this connection.
    pub fn hello(&self) -> &HelloGuest {
        &self.hello
    }

    pub fn protocol(&self) -> u32 {
        self.protocol
    }

    /// Of the guest's current boot; it changes once when [`Channel::configure`] is accepted.
    pub fn boot_id(&self) -> String {
        self.shared.boot_id.lock().clone()
    }

    /// The guest as of the last event that arrived; after the connection ended, the last known.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Changes with every event.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Events from number `from` on, as far as guest and host still hold them, then new ones.
    pub fn events(&self, from: u64) -> Events {
        Events::new(&self.shared, from)
    }

    /// Log lines from number `from` on, as far as the guest still holds them, then new ones. One reader at a time: a
    /// second call takes over, and the first one's stream ends.
    pub async fn logs(&self, from: u64) -> Result<Logs, Error> {
        Logs::open(&self.shared, from).await
    }

    /// Why the connection ended, `None` while it holds.
    pub fn closed(&self) -> Option<String> {
        self.shared.closed.borrow().clone()
    }

    /// Waits until the connection ends and says why.
    pub async fn wait_closed(&self) -> String {
        let mut closed = self.shared.closed.subscribe();
        let why = closed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "detached".to_owned())
    }

    /// Hands the guest its configuration; returns when it is taken. Whether it could be applied comes as an event.
    ///
    /// # Errors
    /// `Refused` with the guest's reason, also when it has a configuration already; `Timeout` after 5 s.
    pub async fn configure(&self, config: Config) -> Result<(), Error> {
        let (sender, answer) = oneshot::channel();
        *self.shared.config.lock() = Some(sender);
        let message = ToGuest::Config(Box::new(config));
        let step = async {
            self.shared.send(&message).await?;
            answer.await.map_err(|_| self.shared.closed_error())
        };
        let answer = self.shared.within("its configuration", HANDSHAKE_SECONDS, step).await?;
        if !answer.accepted {
            let code = answer.code.unwrap_or(model::guest::FailureCode::ConfigParseFailed);
            return Err(Error::Refused { code, detail: answer.detail });
        }
        *self.shared.boot_id.lock() = answer.boot_id;
        self.shared.state.send_if_modified(|state| {
            let early = state.phase == Phase::Waiting;
            if early {
                state.phase = Phase::Applying;
            }
            early
        });
        Ok(())
    }

    /// Starts a program beside the workload. `request.stream` is chosen here, whatever it holds.
    ///
    /// # Errors
    /// `ExecRefused` in the guest's words, `TooManySessions`, `Timeout`, `Closed`.
    pub async fn exec(&self, request: ExecOpen) -> Result<Session, Error> {
        session::open(&self.shared, request).await
    }

    /// Tells the guest to end: TERM to its workload, KILL after the grace time, power off. Returns when it has begun;
    /// the end of the connection, and of the machine's process, follow. Safe to repeat.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), Error> {
        let grace_seconds = u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        let mut stopping = self.shared.stopping.subscribe();
        let step = async {
            self.shared.send(&ToGuest::Shutdown { grace_seconds }).await?;
            stopping.wait_for(|stopping| *stopping).await.map_err(|_| self.shared.closed_error())?;
            Ok(())
        };
        self.shared.within("the shutdown", ANSWER_SECONDS, step).await
    }

    /// Has the guest let go of what is its own, so that it can be saved and others go on from it. Once per connection.
    ///
    /// # Errors
    /// `NotPrepared` with the guest's reason, `Timeout`, `Closed`.
    pub async fn prepare_template(&self) -> Result<(), Error> {
        let mut prepared = self.shared.prepared.subscribe();
        let step = async {
            self.shared.send(&ToGuest::PrepareTemplate).await?;
            let failure = prepared.wait_for(Option::is_some).await.map_err(|_| self.shared.closed_error())?;
            match failure.as_deref() {
                None | Some("") => Ok(()),
                Some(why) => Err(Error::NotPrepared { why: why.to_owned() }),
            }
        };
        self.shared.within("being prepared as a template", ANSWER_SECONDS, step).await
    }

    /// One round trip through the guest's loop.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = tokio::time::Instant::now();
        self.shared.ask("a ping", |id| ToGuest::Ping { id }).await?;
        Ok(start.elapsed())
    }

    pub async fn stats(&self) -> Result<Stats, Error> {
        match self.shared.ask("a question for its numbers", |id| ToGuest::Stats { id }).await? {
            Answer::Stats(stats) => Ok(stats),
            Answer::Pong => Err(Error::Closed { why: "the guest answers what was not asked".to_owned() }),
        }
    }

    /// `unix_ns` should be read just before the call.
    pub async fn set_clock(&self, unix_ns: u64) -> Result<(), Error> {
        self.shared.send(&ToGuest::SetClock { unix_ns }).await
    }
}

async fn await_hello(reader: &mut OwnedReadHalf, decoder: &mut Decoder, nonce: &str) -> Result<HelloGuest, Error> {
    let mut buffer = vec![0u8; READ_MAX];
    loop {
        while let Some(frame) = decoder.pop() {
            // Anything else was meant for a host before us.
            if let Ok(ToHost::Hello(hello)) = frame.message()
                && hello.nonce == nonce
            {
                return Ok(hello);
            }
        }
        match reader.read(&mut buffer).await {
            Ok(0) => return Err(Error::Closed { why: "the machine ended before its guest reported".to_owned() }),
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) => return Err(Error::Closed { why: error.to_string() }),
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) -> String {
    while let Some(bytes) = queue.recv().await {
        if let Err(error) = writer.write_all(&bytes).await {
            return error.to_string();
        }
    }
    "detached".to_owned()
}
