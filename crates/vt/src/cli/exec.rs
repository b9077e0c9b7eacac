use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::{SinkExt as _, StreamExt as _};
use model::Code;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::session::Session;
use super::{complete, noun};
use crate::client::socket::{Frame, Socket};
use crate::client::{Api, Item, Target};
use crate::failure::{EXIT_INTERRUPTED, Failure, Outcome};

/// First byte of each binary message, after the API's contract.
const STDIN: u8 = 0x01;
const STDOUT: u8 = 0x02;
const STDERR: u8 = 0x03;
const CONTROL: u8 = 0x10;
const EXIT: u8 = 0x11;
/// Read from the terminal at once.
const CHUNK_BYTES: usize = 32 << 10;
/// As shells add it to the number of the signal that ended a process.
const SIGNAL_BASE: u64 = 128;
/// How often Ctrl-C is passed on before it ends this command itself.
const INTERRUPTS_MAX: u32 = 3;

/// Runs a command inside an instance
///
/// Ends with the command's own exit code; 125 means that it could not be run. Without --vm it is the first instance
/// that is ready, which is named on stderr.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt exec -- cat /etc/os-release
  vt exec -it -- sh
  vt exec --vm web-2 -i -- tee /tmp/file < file")]
pub struct ExecArgs {
    /// The instance
    #[arg(long, value_name = "NAME|ID", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Pass stdin on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// With a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// As this user instead of the process's own
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// In this folder
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<String>,
}

pub async fn run(session: &Session, args: &ExecArgs) -> Outcome {
    if args.tty && !io::stdin().is_terminal() {
        return Err(Failure::usage("stdin is not a terminal").hint("leave -t out, or run it from a terminal"));
    }
    let api = session.api()?;
    let vm = instance(session, &api, args).await?;
    let mut socket = api.socket(&format!("/v1/vms/{}/exec", vm.row.id)).await?;
    let size = args.tty.then(window);
    let mut request = json!({
        "argv": args.command,
        "env": if args.tty { json!([format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()))]) } else { json!([]) },
        "pty": size.map(|(rows, cols)| json!({ "rows": rows, "cols": cols })),
    });
    for (key, value) in [("user", &args.user), ("cwd", &args.workdir)] {
        if let Some(value) = value {
            request[key] = json!(value);
        }
    }
    socket.send(Frame::text(request.to_string())).await.map_err(broken)?;
    let raw = if args.tty { Some(Raw::enter()?) } else { None };
    let ended = carry(&mut socket, args).await;
    // The terminal is whole again before anything is said on it.
    drop(raw);
    // The command has ended; the other side may already be gone.
    let _ = socket.close(None).await;
    ended
}

/// The instance that was named, or the first that is ready.
async fn instance(session: &Session, api: &Api, args: &ExecArgs) -> Result<Item, Failure> {
    let target = Target::new(api, &session.settings);
    let noun = noun::noun_of("vm")?;
    if let Some(name) = &args.vm {
        return target.find_of(noun, name).await;
    }
    let scope = target.env().await?.row.inner_scope().to_string();
    let mut vms = api.list(noun, &[("scope", scope.as_str())]).await?;
    vms.retain(|vm| !vm.row.deleting());
    vms.sort_by(|a, b| (&a.row.name, &a.row.id).cmp(&(&b.row.name, &b.row.id)));
    let found =
        vms.iter().find(|vm| vm.row.phase == "ready").or_else(|| vms.iter().find(|vm| vm.row.phase == "running"));
    match found {
        Some(vm) => {
            session.out.note(format!("{} ({})", vm.row.name, vm.row.id));
            Ok(vm.clone())
        }
        None => {
            let why = vms.iter().find_map(|vm| Some(format!("{}: {}", vm.row.name, vm.row.reason.as_ref()?.message)));
            let failure = Failure::new(Code::Unavailable, format!("no instance of {} is ready", session.place()));
            let rests = vms.iter().any(|vm| matches!(vm.row.phase.as_str(), "resting" | "warm" | "sleeping"));
            let hint = if rests { "vt wake" } else { "vt status; vt why" };
            Err(failure.why(why.unwrap_or_default()).hint(hint))
        }
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Unavailable, "the connection to the instance broke off")
        .why(error.to_string())
        .hint("vt status; then run it again")
}

fn message(kind: u8, payload: &[u8]) -> Frame {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    Frame::binary(bytes)
}

fn control(value: &Value) -> Frame {
    message(CONTROL, value.to_string().as_bytes())
}

/// Carries bytes both ways until the command has ended.
async fn carry(socket: &mut Socket, args: &ExecArgs) -> Outcome {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::new(Code::Failed, format!("signals cannot be heard: {error}")));
    let mut resized = listen(SignalKind::window_change())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut stdin = tokio::io::stdin();
    let mut reading = args.stdin || args.tty;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut interrupts = 0;
    if !reading {
        socket.send(message(STDIN, &[])).await.map_err(broken)?;
    }
    loop {
        tokio::select! {
            received = socket.next() => match received {
                Some(Ok(Frame::Binary(bytes))) => if let Some(code) = receive(&bytes)? { return Ok(code) },
                // A text is how the API says that it could not begin.
                Some(Ok(Frame::Text(text))) => {
                    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
                    let problem = problem.get("error").unwrap_or(&problem);
                    return Err(Failure::from_problem(problem).unwrap_or_else(|| broken(&text)));
                }
                Some(Ok(Frame::Close(_))) | None => return Err(broken("it was closed before the command ended")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
            },
            read = stdin.read(&mut buffer), if reading => {
                let count = read.unwrap_or(0);
                // Nothing is the end of input, which the guest has to hear of too.
                socket.send(message(STDIN, &buffer[..count])).await.map_err(broken)?;
                reading = count > 0;
            }
            _ = resized.recv(), if args.tty => {
                let (rows, cols) = window();
                socket.send(control(&json!({ "resize": { "rows": rows, "cols": cols } }))).await.map_err(broken)?;
            }
            _ = interrupt.recv() => {
                interrupts += 1;
                if interrupts > INTERRUPTS_MAX {
                    return Ok(EXIT_INTERRUPTED);
                }
                socket.send(control(&json!({ "signal": "INT" }))).await.map_err(broken)?;
            }
            _ = terminate.recv() => socket.send(control(&json!({ "signal": "TERM" }))).await.map_err(broken)?,
            _ = hangup.recv() => {
                // The terminal is gone; so is whoever could read on.
                let _ = socket.send(control(&json!({ "close": true }))).await;
                return Ok(EXIT_INTERRUPTED);
            }
        }
    }
}

/// One message from the guest. The exit code when it was the last.
fn receive(bytes: &[u8]) -> Result<Option<u8>, Failure> {
    let Some((kind, payload)) = bytes.split_first() else { return Ok(None) };
    match *kind {
        STDOUT => crate::output::write_bytes(payload)?,
        STDERR => {
            let mut stderr = io::stderr().lock();
            // Nobody reads it when it is gone.
            let _ = stderr.write_all(payload).and_then(|()| stderr.flush());
        }
        EXIT => {
            let exit: Value = serde_json::from_slice(payload).map_err(broken)?;
            return ended(&exit).map(Some);
        }
        _ => {}
    }
    Ok(None)
}

/// What the command ended with, as an exit code.
fn ended(exit: &Value) -> Outcome {
    if let Some(code) = exit["exit_code"].as_i64() {
        return Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
    }
    if let Some(number) = exit["signal"].as_u64() {
        return Ok(u8::try_from(SIGNAL_BASE + number).unwrap_or(u8::MAX));
    }
    let why = exit["error"].as_str().unwrap_or("the guest did not say why");
    Err(Failure::new(Code::Failed, "the command could not be run").why(crate::output::text::clean(why)))
}

/// Rows and columns of the terminal.
fn window() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}

/// The terminal in raw mode: every key goes to the guest, Ctrl-C too. Dropping it restores what was.
struct Raw(rustix::termios::Termios);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let failed =
            |error: rustix::io::Errno| Failure::new(Code::Failed, format!("the terminal cannot be used: {error}"));
        let before = rustix::termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What cannot be restored cannot be told either: `reset` helps.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Drain, &self.0);
    }
}
