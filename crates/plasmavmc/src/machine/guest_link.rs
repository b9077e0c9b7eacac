//! The task that holds the channel to a machine's guest: it hands over the configuration once, then follows the
//! workload's state and writes its output down. A connection that breaks is made again while the process lives.

use std::sync::Arc;
use std::time::Duration;

use model::guest::{ExecOpen, LogStream};
use tokio::net::UnixStream;

use super::{GuestSeen, Live, Machine};
use crate::channel::{self, Channel, LogItem};
use crate::launch::{self, GUEST_SOCKET};
use crate::logs::Stream;
use crate::seen::{EndCode, Guest};
use crate::{Error, ExecRequest};

/// One attempt to find the guest. Longer than any boot; the machine's own boot deadline ends the wait.
const CONNECT_DEADLINE: Duration = Duration::from_mins(5);
/// Between a connection that broke and the next.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

impl Machine {
    /// Ends when the process does, or when host and guest cannot understand each other. `first` is connected to the port
    /// already.
    pub(super) async fn guest_link(self: Arc<Self>, live: Arc<Live>, adopted: bool, mut first: Option<UnixStream>) {
        while live.process.alive() {
            let Some(channel) = self.reach(&live, adopted, first.take()).await else { return };
            if channel.hello().configured {
                // It may have slept.
                if let Err(error) = channel.set_clock(self.context.clock.now_ns()).await {
                    tracing::debug!(id = %self.id, %error, "the guest's clock was not set");
                }
            } else if !self.configure(&live, &channel).await {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
            *live.channel.lock() = Some(channel.clone());
            self.hear(&channel);
            tokio::join!(self.follow(&channel), self.record(&channel));
            *live.channel.lock() = None;
            if let Some(seen) = &mut self.state.lock().guest {
                seen.guest.connected = false;
            }
            self.changed();
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// A connection whose hellos are exchanged; `None` when there can be none.
    async fn reach(&self, live: &Arc<Live>, adopted: bool, mut first: Option<UnixStream>) -> Option<Channel> {
        loop {
            let connected = match (first.take(), launch::short(&self.folder, GUEST_SOCKET)) {
                (Some(socket), _) => tokio::select! {
                    connected = Channel::over(socket, CONNECT_DEADLINE) => connected,
                    () = live.process.ended() => return None,
                },
                (None, Ok((_folder, path))) => tokio::select! {
                    connected = Channel::connect(&path, CONNECT_DEADLINE) => connected,
                    () = live.process.ended() => return None,
                },
                (None, Err(source)) => Err(channel::Error::Connect { path: self.folder.clone(), source }),
            };
            match connected {
                Ok(channel) => return Some(channel),
                Err(error @ channel::Error::ProtocolMismatch { .. }) => {
                    tracing::error!(id = %self.id, %error, "host and guest do not understand each other");
                    // A machine that served before this program was replaced goes on serving.
                    if !adopted {
                        live.judge(EndCode::HandshakeFailed, error.to_string());
                        live.process.kill();
                    }
                    return None;
                }
                Err(error) => tracing::debug!(id = %self.id, %error, "the guest is not there yet"),
            }
            if !live.process.alive() {
                return None;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// True when the guest took its configuration.
    async fn configure(&self, live: &Arc<Live>, channel: &Channel) -> bool {
        let config = loop {
            let told = live.told.notified();
            let spec = self.state.lock().spec.clone();
            if let Some(spec) = spec {
                break spec.boot_config(channel.protocol(), self.context.clock.now_ns());
            }
            // The engine came back between this machine's start and its configuration: the secrets are not here.
            tokio::select! {
                () = told => {}
                _ = channel.wait_closed() => return false,
            }
        };
        tracing::debug!(id = %self.id, "the guest has reported");
        match channel.configure(config).await {
            Ok(()) => {
                tracing::debug!(id = %self.id, "the guest has its configuration");
                true
            }
            Err(error @ channel::Error::Refused { .. }) => {
                live.judge(EndCode::HandshakeFailed, error.to_string());
                live.process.kill();
                false
            }
            Err(error) => {
                tracing::warn!(id = %self.id, %error, "the guest did not take its configuration");
                false
            }
        }
    }

    /// Takes in what the guest says of itself.
    fn hear(&self, channel: &Channel) {
        let hello = channel.hello();
        let guest = Guest {
            connected: channel.closed().is_none(),
            boot_id: channel.boot_id(),
            init_version: hello.init_version.clone(),
            configured: true,
            state: channel.state(),
            uptime_ms: hello.uptime_ms,
        };
        {
            let mut state = self.state.lock();
            // Of this connection's hello, whose uptime it is.
            let heard_ms = match &state.guest {
                Some(seen) if seen.guest.uptime_ms == guest.uptime_ms => seen.heard_ms,
                _ => self.context.clock.now_ms(),
            };
            state.guest = Some(GuestSeen { guest, heard_ms });
        }
        self.changed();
    }

    /// Until the connection ends.
    async fn follow(&self, channel: &Channel) {
        let mut states = channel.watch();
        loop {
            tokio::select! {
                biased;
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    states.borrow_and_update();
                    self.hear(channel);
                }
                _ = channel.wait_closed() => {
                    self.hear(channel);
                    return;
                }
            }
        }
    }

    /// Until the connection ends and all that came over it is written.
    async fn record(&self, channel: &Channel) {
        let boot = channel.boot_id();
        let mut lines = match channel.logs(self.logs.next_of(&boot)).await {
            Ok(lines) => lines,
            Err(error) => {
                tracing::debug!(id = %self.id, %error, "the guest's log cannot be read");
                return;
            }
        };
        while let Some(item) = lines.recv().await {
            match item {
                LogItem::Line(line) => {
                    let stream = match line.stream {
                        LogStream::Stdout => Stream::Stdout,
                        LogStream::Stderr => Stream::Stderr,
                    };
                    if let Err(error) =
                        self.logs.append(&boot, line.seq, line.unix_ns, stream, line.partial, &line.text)
                    {
                        // A full disk costs lines, not machines.
                        tracing::warn!(id = %self.id, %error, "a log line was not written");
                    }
                }
                LogItem::Lost { from, to } => {
                    tracing::warn!(id = %self.id, from, to, "log lines were lost in the guest");
                }
            }
        }
    }

    /// See [`crate::Engine::exec`].
    pub async fn exec(&self, request: ExecRequest) -> Result<channel::Session, Error> {
        let ExecRequest { argv, env, cwd, user, pty } = request;
        let open = ExecOpen { stream: 0, argv, env, cwd, user, pty };
        let session = self.channel()?.exec(open).await;
        session.map_err(|source| Error::Exec { id: self.id.clone(), source })
    }
}
