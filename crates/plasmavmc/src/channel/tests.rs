//! The host's end against a small scripted guest. The real guest is tested where real machines boot.

use std::path::PathBuf;
use std::time::Duration;

use model::guest::{
    Config, Decoder, Disk, EXEC_WINDOW, Event, ExecOpen, Exit, FailureCode, Frame, HelloGuest, HelloHost, Hidden, Kind,
    LOG_LINE_OVERHEAD, LOG_WINDOW, LogLine, LogStream, Numbered, Phase, Process, Restart, State, Stats, ToGuest,
    ToHost, encode, preamble,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;

const LONG: Duration = Duration::from_secs(30);

struct Socket {
    listener: UnixListener,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Socket {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), path, _dir: dir }
    }

    async fn accept(&self) -> Guest {
        let (stream, _) = self.listener.accept().await.unwrap();
        Guest { stream, decoder: Decoder::new() }
    }

    /// A connection past its hello, on both sides.
    async fn attached(&self) -> (Channel, Guest) {
        let guest = async {
            let mut guest = self.accept().await;
            let nonce = guest.hello().await.nonce;
            guest.answer(&nonce, false).await;
            assert_eq!(guest.message().await, ToGuest::EventsFrom { seq: 0 });
            guest
        };
        let (channel, guest) = tokio::join!(Channel::connect(&self.path, LONG), guest);
        (channel.unwrap(), guest)
    }
}

struct Guest {
    stream: UnixStream,
    decoder: Decoder,
}

impl Guest {
    async fn frame(&mut self) -> Frame {
        let mut buffer = vec![0u8; 4096];
        loop {
            if let Some(frame) = self.decoder.pop() {
                return frame;
            }
            let length = self.stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the host left");
            self.decoder.push(&buffer[..length]);
        }
    }

    async fn message(&mut self) -> ToGuest {
        self.frame().await.message().unwrap()
    }

    async fn hello(&mut self) -> HelloHost {
        match self.message().await {
            ToGuest::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&mut self, message: &ToHost) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn data(&mut self, kind: Kind, stream: u32, data: &[u8]) {
        let mut bytes = Vec::new();
        encode(kind, stream, data, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn answer(&mut self, nonce: &str, configured: bool) {
        self.stream.write_all(&hello_bytes(nonce, 1, 1, configured)).await.unwrap();
    }

    async fn event(&mut self, seq: u64, event: Event) {
        self.send(&ToHost::Event(Numbered { seq, unix_ns: 0, event })).await;
    }

    async fn line(&mut self, seq: u64, text: &[u8]) {
        let mut bytes = Vec::new();
        let line = LogLine { seq, unix_ns: 1, stream: LogStream::Stdout, partial: false, text: text.to_vec() };
        line.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn exec_open(&mut self) -> ExecOpen {
        match self.message().await {
            ToGuest::ExecOpen(open) => open,
            other => panic!("{other:?}"),
        }
    }

    async fn is_left_alone(&mut self) -> bool {
        let mut buffer = [0u8; 4096];
        loop {
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return true,
                Ok(length) => self.decoder.push(&buffer[..length]),
            }
        }
    }
}

fn hello_bytes(nonce: &str, protocol_min: u32, protocol_max: u32, configured: bool) -> Vec<u8> {
    let state = State { phase: if configured { Phase::Running } else { Phase::Waiting }, ..State::default() };
    let hello = HelloGuest {
        nonce: nonce.to_owned(),
        protocol_min,
        protocol_max,
        init_version: "test".into(),
        boot_id: "boot".into(),
        uptime_ms: 5,
        instance_id: None,
        configured,
        state,
    };
    let mut bytes = Vec::new();
    preamble(&mut bytes);
    ToHost::Hello(hello).encode(&mut bytes).unwrap();
    bytes
}

fn config() -> Config {
    Config {
        protocol: 1,
        instance_id: "vm_1".into(),
        hostname: "web".into(),
        machine_id: "0".repeat(32),
        entropy: Hidden::new("00".repeat(32)),
        clock_unix_ns: 1,
        root: Disk { device: "/dev/vda".into(), fs: "erofs".into() },
        scratch: None,
        network: None,
        process: Process {
            argv: vec!["/app".into()],
            env: Vec::new(),
            workdir: String::new(),
            user: String::new(),
            prestart: Vec::new(),
            prestart_timeout_seconds: 30,
            restart: Restart::default(),
            grace_seconds: 10,
        },
        health: None,
        secrets: None,
        secrets_required: false,
    }
}

fn request(argv: &[&str]) -> ExecOpen {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    ExecOpen { stream: 0, argv, env: Vec::new(), cwd: None, user: None, pty: None }
}

const EXIT: Exit = Exit { code: Some(3), signal: None, oom: false };

#[tokio::test]
async fn a_guest_amid_old_noise_and_in_small_pieces_is_understood() {
    let socket = Socket::new();
    let guest = async {
        let mut guest = socket.accept().await;
        let nonce = guest.hello().await.nonce;
        // The tail of an older conversation: half a frame, a whole hello for another host.
        let mut bytes = hello_bytes("stale", 1, 1, true);
        bytes.extend_from_slice(&hello_bytes("cut off", 1, 1, true)[..33_000]);
        bytes.extend_from_slice(&hello_bytes(&nonce, 1, 1, false));
        for piece in bytes.chunks(777) {
            guest.stream.write_all(piece).await.unwrap();
        }
        guest
    };
    let (channel, _guest) = tokio::join!(Channel::connect(&socket.path, LONG), guest);
    let channel = channel.unwrap();
    assert!(!channel.hello().configured);
    assert_eq!((channel.protocol(), channel.boot_id().as_str()), (1, "boot"));
}

#[tokio::test]
async fn versions_that_do_not_meet_are_named() {
    let socket = Socket::new();
    let guest = async {
        let mut guest = socket.accept().await;
        let nonce = guest.hello().await.nonce;
        guest.stream.write_all(&hello_bytes(&nonce, 7, 9, false)).await.unwrap();
        guest
    };
    let (result, _guest) = tokio::join!(Channel::connect(&socket.path, LONG), guest);
    let error = result.err().unwrap();
    assert_eq!(error.failure(), Some(FailureCode::GuestInitProtocolMismatch));
    assert!(error.to_string().contains("7 to 9"), "{error}");
}

#[tokio::test]
async fn silence_absence_and_a_sudden_end_are_told_apart() {
    let socket = Socket::new();
    let error = Channel::connect(&socket.path, Duration::from_millis(50)).await.err().unwrap();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    let absent = socket.path.with_extension("absent");
    let error = Channel::connect(&absent, Duration::from_millis(50)).await.err().unwrap();
    assert!(matches!(error, Error::Connect { .. }), "{error}");

    let socket = Socket::new();
    let guest = async { drop(socket.accept().await) };
    let (result, ()) = tokio::join!(Channel::connect(&socket.path, LONG), guest);
    assert!(matches!(result.err().unwrap(), Error::Closed { .. }));
}

#[tokio::test]
async fn a_configuration_is_taken_or_refused_with_its_reason() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let configuring = tokio::spawn(async move { host.configure(config()).await });
    assert_eq!(guest.message().await, ToGuest::Config(Box::new(config())));
    let ack = |accepted, code, detail: &str| ToHost::ConfigAck {
        accepted,
        boot_id: "fresh".into(),
        code,
        detail: detail.into(),
    };
    guest.send(&ack(true, None, "")).await;
    configuring.await.unwrap().unwrap();
    assert_eq!((channel.boot_id().as_str(), channel.state().phase), ("fresh", Phase::Applying));

    let host = channel.clone();
    let configuring = tokio::spawn(async move { host.configure(config()).await });
    guest.message().await;
    guest.send(&ack(false, Some(FailureCode::ConfigParseFailed), "no argv")).await;
    let error = configuring.await.unwrap().unwrap_err();
    assert_eq!(error.failure(), Some(FailureCode::ConfigParseFailed));
    assert!(error.to_string().contains("no argv"), "{error}");
}

#[tokio::test]
async fn events_fold_into_the_state_and_come_in_order() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let mut events = channel.events(1);
    guest.event(0, Event::ConfigApplied).await;
    guest.event(1, Event::Started { pid: 7 }).await;
    guest.event(2, Event::Ready).await;
    assert_eq!(events.next().await.unwrap().event, Event::Started { pid: 7 });
    assert_eq!(events.next().await.unwrap().event, Event::Ready);
    let state = channel.state();
    assert_eq!((state.phase, state.pid, state.ready, state.event_next), (Phase::Running, Some(7), true, 3));

    // Someone who comes late gets the history; the end comes after the last event.
    let mut late = channel.events(0);
    guest.event(3, Event::Exited(EXIT)).await;
    drop(guest);
    let mut seen = Vec::new();
    while let Some(event) = late.next().await {
        seen.push(event.seq);
    }
    assert_eq!(seen, [0, 1, 2, 3]);
    assert_eq!(channel.wait_closed().await, "the machine ended");
    assert_eq!(channel.state().last_exit, Some(EXIT));
}

#[tokio::test]
async fn replayed_events_do_not_change_a_state_that_holds_them_already() {
    let socket = Socket::new();
    let guest = async {
        let mut guest = socket.accept().await;
        let nonce = guest.hello().await.nonce;
        let mut hello = ToHost::Pong { id: 0 };
        if let Some(frame) = {
            let mut decoder = Decoder::new();
            decoder.push(&hello_bytes(&nonce, 1, 1, true));
            decoder.pop()
        } {
            hello = frame.message().unwrap();
        }
        if let ToHost::Hello(hello) = &mut hello {
            hello.state.event_next = 2;
            hello.state.restarts = 1;
        }
        guest.send(&hello).await;
        guest.event(1, Event::Restarting { attempt: 1, delay_ms: 1, crash_loop: false }).await;
        guest.event(2, Event::Ready).await;
        guest
    };
    let (channel, _guest) = tokio::join!(Channel::connect(&socket.path, LONG), guest);
    let channel = channel.unwrap();
    let mut watch = channel.watch();
    watch.wait_for(|state| state.ready).await.unwrap();
    assert_eq!((channel.state().restarts, channel.state().phase), (1, Phase::Running));
    let mut events = channel.events(0);
    assert_eq!((events.next().await.unwrap().seq, events.next().await.unwrap().seq), (1, 2));
}

#[tokio::test]
async fn log_lines_flow_within_their_window_and_resume_where_they_were() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let mut logs = channel.logs(5).await.unwrap();
    assert_eq!(guest.message().await, ToGuest::LogsFrom { seq: 5 });
    // A line that was under way for an older reader is not given to this one.
    guest.line(90, b"stale").await;
    guest.send(&ToHost::LogsStart { asked: 5, seq: 8 }).await;
    guest.line(8, b"eight").await;
    assert_eq!(logs.recv().await.unwrap(), LogItem::Lost { from: 5, to: 8 });
    match logs.recv().await.unwrap() {
        LogItem::Line(line) => assert_eq!((line.seq, line.text.as_slice()), (8, b"eight".as_slice())),
        other @ LogItem::Lost { .. } => panic!("{other:?}"),
    }
    // A quarter of the window taken is acknowledged.
    let text = vec![b'x'; 1000];
    let lines = (LOG_WINDOW / 4 / (text.len() + LOG_LINE_OVERHEAD) + 1) as u64;
    for seq in 9..9 + lines {
        guest.line(seq, &text).await;
        logs.recv().await.unwrap();
    }
    match guest.message().await {
        ToGuest::LogsAck { next } => assert!(next > 9 && next <= 9 + lines, "{next}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(logs.next_seq(), 9 + lines);
    // A second reader takes over.
    let _second = channel.logs(0).await.unwrap();
    assert_eq!(logs.recv().await, None);
}

#[tokio::test]
async fn a_guest_that_ignores_the_log_window_loses_its_reader_and_nothing_grows() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let mut logs = channel.logs(0).await.unwrap();
    guest.message().await;
    guest.send(&ToHost::LogsStart { asked: 0, seq: 0 }).await;
    let flood = 4 * LOG_WINDOW / LOG_LINE_OVERHEAD;
    for seq in 0..flood {
        guest.line(seq as u64, b"").await;
    }
    let mut seen = 0;
    while logs.recv().await.is_some() {
        seen += 1;
    }
    assert!(seen > 0 && seen < flood, "{seen}");
    // The connection itself goes on.
    let pinging = tokio::spawn(async move { channel.ping().await });
    loop {
        if let ToGuest::Ping { id } = guest.message().await {
            guest.send(&ToHost::Pong { id }).await;
            break;
        }
    }
    pinging.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_program_gets_input_gives_output_and_ends_with_its_code() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let opening = tokio::spawn(async move { host.exec(request(&["cat"])).await });
    let open = guest.exec_open().await;
    assert_eq!(open.argv, ["cat"]);
    let stream = open.stream;
    guest.send(&ToHost::ExecStarted { stream, pid: 99 }).await;
    let Session { mut stdin, mut output, control } = opening.await.unwrap().unwrap();
    assert_eq!(control.pid(), 99);

    stdin.write(b"in").await.unwrap();
    stdin.finish().await.unwrap();
    control.resize(40, 120).await.unwrap();
    control.signal(15).await.unwrap();
    let frame = guest.frame().await;
    assert_eq!((frame.kind, frame.stream, frame.payload.as_slice()), (Kind::ExecStdin, stream, b"in".as_slice()));
    assert_eq!(guest.frame().await.kind, Kind::ExecStdinEof);
    assert_eq!(guest.message().await, ToGuest::ExecResize { stream, rows: 40, cols: 120 });
    assert_eq!(guest.message().await, ToGuest::ExecSignal { stream, signal: 15 });

    guest.data(Kind::ExecStdout, stream, b"out").await;
    assert_eq!(output.next().await.unwrap(), Chunk { stream: LogStream::Stdout, data: "out".into() });
    assert_eq!(guest.message().await, ToGuest::ExecCredit { stream, bytes: 3 });
    // What came before the end is given before the end, also after wait returned.
    guest.data(Kind::ExecStderr, stream, b"err").await;
    guest.send(&ToHost::ExecExit { stream, exit: EXIT }).await;
    assert_eq!(control.wait().await.unwrap(), EXIT);
    assert_eq!(output.next().await.unwrap(), Chunk { stream: LogStream::Stderr, data: "err".into() });
    assert_eq!(output.next().await, None);
    assert!(stdin.write(b"late").await.is_err());
}

#[tokio::test]
async fn input_waits_for_credit() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let opening = tokio::spawn(async move { host.exec(request(&["slow"])).await });
    let stream = guest.exec_open().await.stream;
    guest.send(&ToHost::ExecStarted { stream, pid: 1 }).await;
    let mut session = opening.await.unwrap().unwrap();
    let total = EXEC_WINDOW as usize + 1000;
    let writing = tokio::spawn(async move {
        session.stdin.write(&vec![7u8; total]).await.unwrap();
        session
    });
    let mut received = 0;
    while received < EXEC_WINDOW as usize {
        received += guest.frame().await.payload.len();
    }
    assert_eq!(received, EXEC_WINDOW as usize);
    assert!(!writing.is_finished());
    guest.send(&ToHost::ExecCredit { stream, bytes: EXEC_WINDOW }).await;
    received += guest.frame().await.payload.len();
    assert_eq!(received, total);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_refused_program_is_an_error_and_a_dropped_session_is_closed() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let opening = tokio::spawn(async move { host.exec(request(&["nosuch"])).await });
    let stream = guest.exec_open().await.stream;
    guest.send(&ToHost::ExecRefused { stream, detail: "nosuch is not in PATH".into() }).await;
    let error = opening.await.unwrap().err().unwrap();
    assert!(matches!(&error, Error::ExecRefused { detail } if detail.contains("nosuch")), "{error}");

    let host = channel.clone();
    let opening = tokio::spawn(async move { host.exec(request(&["sleep"])).await });
    let stream = guest.exec_open().await.stream;
    guest.send(&ToHost::ExecStarted { stream, pid: 1 }).await;
    drop(opening.await.unwrap().unwrap());
    assert_eq!(guest.message().await, ToGuest::ExecClose { stream });
}

#[tokio::test]
async fn the_end_of_the_connection_ends_every_wait() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let opening = tokio::spawn(async move { host.exec(request(&["sleep"])).await });
    let stream = guest.exec_open().await.stream;
    guest.send(&ToHost::ExecStarted { stream, pid: 1 }).await;
    let mut session = opening.await.unwrap().unwrap();
    let mut logs = channel.logs(0).await.unwrap();
    let host = channel.clone();
    let asking = tokio::spawn(async move { host.stats().await });
    while !matches!(guest.message().await, ToGuest::Stats { .. }) {}
    drop(guest);
    assert!(matches!(asking.await.unwrap(), Err(Error::Closed { .. })));
    assert!(matches!(session.control.wait().await, Err(Error::Closed { .. })));
    assert_eq!(session.output.next().await, None);
    assert_eq!(logs.recv().await, None);
    assert!(matches!(channel.ping().await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn dropping_the_channel_detaches_and_another_one_adopts() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let clone = channel.clone();
    drop(channel);
    let pinging = tokio::spawn(async move { clone.ping().await });
    let ToGuest::Ping { id } = guest.message().await else { panic!("no ping") };
    guest.send(&ToHost::Pong { id }).await;
    // The last clone went with its task.
    pinging.await.unwrap().unwrap();
    assert!(guest.is_left_alone().await);
    assert_eq!(guest.decoder.pop(), None, "a detached guest was told something");

    let adopting = async {
        let mut guest = socket.accept().await;
        let nonce = guest.hello().await.nonce;
        guest.answer(&nonce, true).await;
        guest
    };
    let (channel, _guest) = tokio::join!(Channel::connect(&socket.path, LONG), adopting);
    let channel = channel.unwrap();
    assert!(channel.hello().configured);
    assert_eq!(channel.state().phase, Phase::Running);
}

#[tokio::test]
async fn numbers_and_the_shutdown_are_answered() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let asking = tokio::spawn(async move { host.stats().await });
    let ToGuest::Stats { id } = guest.message().await else { panic!("no question") };
    let stats = Stats { uptime_ms: 9, ..Stats::default() };
    guest.send(&ToHost::Stats { id: id + 1, stats: Stats::default() }).await;
    guest.send(&ToHost::Stats { id, stats }).await;
    assert_eq!(asking.await.unwrap().unwrap(), stats);

    let host = channel.clone();
    let stopping = tokio::spawn(async move { host.shutdown(Duration::from_secs(3)).await });
    assert_eq!(guest.message().await, ToGuest::Shutdown { grace_seconds: 3 });
    guest.send(&ToHost::ShuttingDown).await;
    stopping.await.unwrap().unwrap();
    assert_eq!(channel.state().phase, Phase::Stopping);
}

#[tokio::test]
async fn a_guest_that_talks_nonsense_is_cut_off() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let nonsense = vec![b'v'; 64 * 1024];
    while guest.stream.write_all(&nonsense).await.is_ok() {}
    assert_eq!(channel.wait_closed().await, "the guest does not keep to the protocol");
}

#[tokio::test]
async fn a_guest_that_ignores_the_output_window_loses_that_session_alone() {
    let socket = Socket::new();
    let (channel, mut guest) = socket.attached().await;
    let host = channel.clone();
    let opening = tokio::spawn(async move { host.exec(request(&["yes"])).await });
    let stream = guest.exec_open().await.stream;
    guest.send(&ToHost::ExecStarted { stream, pid: 1 }).await;
    let mut session = opening.await.unwrap().unwrap();
    for _ in 0..=EXEC_WINDOW / 16384 {
        guest.data(Kind::ExecStdout, stream, &[b'y'; 16384]).await;
    }
    assert!(session.control.wait().await.is_err());
    let mut taken = 0;
    while let Some(chunk) = session.output.next().await {
        taken += chunk.data.len();
    }
    assert_eq!(taken, EXEC_WINDOW as usize);
    let pinging = tokio::spawn(async move { channel.ping().await });
    assert_eq!(guest.message().await, ToGuest::ExecClose { stream });
    let ToGuest::Ping { id } = guest.message().await else { panic!("no ping") };
    guest.send(&ToHost::Pong { id }).await;
    pinging.await.unwrap().unwrap();
}
