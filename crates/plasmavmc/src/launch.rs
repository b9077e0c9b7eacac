//! From nothing to a process in a proven jail whose virtual CPUs run.
//!
//! ```text
//!   listening sockets -> cgroup -> fork, walls, exec (halted) -> greeting -> proof -> [saved state] -> cont
//! ```
//!
//! What fails on the way is taken down again before the error is returned. Not to be dropped half way: callers run it in
//! a task of its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::Error;
use crate::jail::cgroup::{Bounds, Group, Hierarchy};
use crate::jail::root::Layout;
use crate::jail::{self, Expected, Limits, Plan};
use crate::kernel::Kernel;
use crate::process::Process;
use crate::qemu::{self, Accelerator, Devices, KERNEL_AT, Program};
use crate::qmp;
use crate::saved::STATE_BYTES_MAX;

/// From exec to the monitor's greeting; the machine may be busy with other starts.
const GREETING_DEADLINE: Duration = Duration::from_secs(30);
/// A killed process is gone after this, or hangs in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Threads of one monitor beside its virtual CPUs: main, RCU, and up to 64 for disk requests.
const THREADS_MAX: u32 = 96;
const OPEN_FILES_MAX: u64 = 256;
/// Said on standard error and kept, in bytes.
const COMPLAINT_BYTES_MAX: usize = 4096;

/// What one start needs.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub id: &'a str,
    pub mark: &'a str,
    pub uid: u32,
    /// For the sockets.
    pub folder: &'a Path,
    /// An empty folder.
    pub mount_point: &'a Path,
    pub hierarchy: &'a Hierarchy,
    pub program: &'a Program,
    pub origin: Origin<'a>,
    pub accelerator: Accelerator,
    pub vcpus: u32,
    pub memory_bytes: u64,
    pub memory: Memory,
    pub cpu_weight: u32,
    pub root: Option<File>,
    pub scratch: Option<File>,
    pub tap: Option<(OwnedFd, &'a str)>,
}

/// What a machine goes on from.
#[derive(Debug)]
pub(crate) enum Origin<'a> {
    Kernel(&'a Kernel),
    /// The devices of a saved machine, opened for this start alone and read from its beginning.
    Saved(File),
}

/// Where the guest's memory is; see [`qemu::Memory`].
#[derive(Debug)]
pub(crate) enum Memory {
    Own,
    /// The process must be allowed to open it again for writing.
    File {
        file: OwnedFd,
        share: bool,
    },
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub process: Process,
    pub child: Child,
    pub group: Group,
    pub monitor: qmp::Client,
    pub events: mpsc::Receiver<qmp::Event>,
    pub console: UnixStream,
    /// To the guest's port, connected before the first instruction.
    pub guest: UnixStream,
    /// What the monitor says on its standard error.
    pub complaints: OwnedFd,
}

/// Names of the sockets in a machine's folder.
pub(crate) const MONITOR_SOCKET: &str = "monitor.sock";
pub(crate) const GUEST_SOCKET: &str = "guest.sock";
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";

/// Starts the process. `born` is called as soon as it exists, before anything can be waited for, so that the caller
/// can write it down; `going` when all is well and only the word to go is missing.
pub(crate) async fn launch(
    launch: Launch<'_>,
    born: impl FnOnce(&Process) -> Result<(), Error>,
    going: impl FnOnce() -> Result<(), Error>,
) -> Result<Launched, Error> {
    let id = launch.id;
    let jail = |act: &str| {
        let (id, act) = (id.to_owned(), act.to_owned());
        move |source| Error::Jail { id, act, source }
    };
    if !Program::is_visible_in_jail(&launch.program.path) {
        let why = format!("{} is outside of the folders that a jail shows", launch.program.path.display());
        return Err(Error::Start { id: id.to_owned(), why });
    }
    let listen = |name: &str| listen(launch.folder, name).map_err(jail("making its sockets"));
    let sockets = [listen(MONITOR_SOCKET)?, listen(GUEST_SOCKET)?, listen(CONSOLE_SOCKET)?];
    // Connected before there is anyone to accept: nothing of the start is missed, and nothing is polled.
    let connect = |name: &str| connect(launch.folder, name).map_err(jail("connecting its sockets"));
    let ends =
        Ends { monitor: connect(MONITOR_SOCKET)?, guest: connect(GUEST_SOCKET)?, console: connect(CONSOLE_SOCKET)? };

    let memory_limit = qemu::memory_limit(launch.accelerator, launch.memory_bytes);
    let bounds = Bounds {
        memory_bytes: page_down(memory_limit),
        cpu_weight: launch.cpu_weight,
        pids: THREADS_MAX + launch.vcpus,
    };
    // Left over from an earlier run of this machine, with its counters: it starts with new ones.
    let group = launch.hierarchy.group(id);
    group.remove().await.map_err(jail("clearing its cgroup"))?;
    let group = launch.hierarchy.create(id, bounds).map_err(jail("making its cgroup"))?;
    let result = start(launch, sockets, &group, bounds, ends, born, going).await;
    if result.is_err() {
        let _ = group.remove().await;
    }
    result
}

/// Our ends of a machine's sockets.
struct Ends {
    monitor: StdUnixStream,
    guest: StdUnixStream,
    console: StdUnixStream,
}

async fn start(
    launch: Launch<'_>,
    [monitor_door, guest_door, console_door]: [UnixListener; 3],
    group: &Group,
    bounds: Bounds,
    ends: Ends,
    born: impl FnOnce(&Process) -> Result<(), Error>,
    going: impl FnOnce() -> Result<(), Error>,
) -> Result<Launched, Error> {
    let id = launch.id.to_owned();
    let failed = |why: String| Error::Start { id: id.clone(), why };
    let number = |file: &Option<File>| file.as_ref().map(AsRawFd::as_raw_fd);
    let devices = Devices {
        mark: launch.mark,
        accelerator: launch.accelerator,
        tsc_khz: qemu::tsc_khz().await,
        origin: match &launch.origin {
            Origin::Kernel(kernel) => qemu::Origin::Kernel(kernel),
            Origin::Saved(_) => qemu::Origin::Saved,
        },
        vcpus: launch.vcpus,
        memory_bytes: launch.memory_bytes,
        memory: match &launch.memory {
            Memory::Own => qemu::Memory::Own,
            Memory::File { file, share } => qemu::Memory::File { file: file.as_raw_fd(), share: *share },
        },
        root: number(&launch.root),
        scratch: number(&launch.scratch),
        tap: launch.tap.as_ref().map(|(tap, mac)| (tap.as_raw_fd(), *mac)),
        monitor: monitor_door.as_raw_fd(),
        guest: guest_door.as_raw_fd(),
        console: console_door.as_raw_fd(),
    };
    let arguments = qemu::arguments(&devices);
    let mut keep = vec![devices.monitor, devices.guest, devices.console];
    let state = match &launch.origin {
        Origin::Kernel(_) => None,
        Origin::Saved(state) => Some(state.as_raw_fd()),
    };
    let memory = match devices.memory {
        qemu::Memory::Own => None,
        qemu::Memory::File { file, .. } => Some(file),
    };
    let tap = devices.tap.map(|(tap, _)| tap);
    keep.extend([devices.root, devices.scratch, tap, memory, state].into_iter().flatten());
    let scratch_bytes = match &launch.scratch {
        Some(file) => file.metadata().map_err(|error| failed(error.to_string()))?.len(),
        None => 0,
    };
    // It writes its disk, and when it is saved its memory and its devices.
    let file_bytes = scratch_bytes.max(launch.memory_bytes + STATE_BYTES_MAX);
    let limits = Limits { open_files: OPEN_FILES_MAX, file_bytes, processes: u64::from(bounds.pids) };
    let (uid, kvm) = (launch.uid, launch.accelerator == Accelerator::Kvm);
    let (group_of_its_own, mount_point) = (group.clone(), launch.mount_point.to_owned());
    let kernel = match &launch.origin {
        Origin::Kernel(kernel) => Some(kernel.folder.clone()),
        Origin::Saved(_) => None,
    };
    let program = launch.program.path.clone();
    // A fork and a new network namespace take milliseconds to tens of them.
    let started = tokio::task::spawn_blocking(move || {
        let show: Vec<_> = kernel.iter().map(|kernel| (kernel.as_path(), KERNEL_AT)).collect();
        let (group, mount_point) = (&group_of_its_own, mount_point.as_path());
        let plan = Plan { uid, group, mount_point, root: Layout { show: &show, kvm }, limits, keep };
        jail::start(&program, &arguments, &plan)
    });
    let started = started.await.map_err(|error| failed(error.to_string()))?;
    let jail::Started { mut child, errors } =
        started.map_err(|refused| Error::Jail { id: id.clone(), act: refused.act, source: refused.source })?;
    let process = match Process::open(child.id()) {
        Ok(process) => process,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            let complaint = complaint(errors).await;
            return Err(failed(format!("its process ended at once: {error}{complaint}")));
        }
    };
    let expected = Expected { uid: launch.uid, group, memory_bytes: bounds.memory_bytes };
    let proven = async {
        born(&process)?;
        let socket = stream(ends.monitor).map_err(|error| failed(error.to_string()))?;
        let greeting = async {
            tokio::select! {
                connected = qmp::Client::connect(socket) => connected.map_err(|error| error.to_string()),
                () = process.ended() => Err("its process ended".to_owned()),
                () = tokio::time::sleep(GREETING_DEADLINE) => Err("its monitor did not greet".to_owned()),
            }
        };
        let (monitor, events) = greeting.await.map_err(failed)?;
        jail::verify(process.pid, &expected).map_err(|why| Error::JailBroken { id: id.clone(), why })?;
        if let Some(state) = state {
            monitor.load(state).await.map_err(|error| failed(format!("its saved state: {error}")))?;
        }
        going()?;
        monitor.cont().await.map_err(|error| failed(error.to_string()))?;
        let console = stream(ends.console).map_err(|error| failed(error.to_string()))?;
        let guest = stream(ends.guest).map_err(|error| failed(error.to_string()))?;
        Ok((monitor, events, console, guest))
    };
    match proven.await {
        Ok((monitor, events, console, guest)) => {
            let group = group.clone();
            Ok(Launched { process, child, group, monitor, events, console, guest, complaints: errors })
        }
        Err(error) => {
            process.kill();
            if !process.ended_within(KILL_DEADLINE).await {
                return Err(Error::Unkillable { id, pid: process.pid });
            }
            let status = child.wait().ok();
            Err(match error {
                Error::Start { id, why } => {
                    Error::Start { id, why: format!("{why}{}{}", ending(status), complaint(errors).await) }
                }
                other => other,
            })
        }
    }
}

/// How a process ended, as the end of a sentence.
pub(crate) fn ending(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!(" (exit code {code})"),
        Some((_, Some(signal))) => format!(" (signal {signal})"),
        _ => String::new(),
    }
}

/// The last a process said, as the end of a sentence. The process must have ended.
async fn complaint(errors: OwnedFd) -> String {
    let text = complaints(errors).await;
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Reads standard error to its end and keeps the last part.
pub(crate) async fn complaints(errors: OwnedFd) -> String {
    use tokio::io::AsyncReadExt;
    let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(errors) else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(COMPLAINT_BYTES_MAX);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

fn page_down(bytes: u64) -> u64 {
    bytes & !4095
}

/// A path to `name` in `folder` that fits a socket's address however deep the folder lies.
pub(crate) fn short(folder: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let folder = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into();
    Ok((folder, path))
}

fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    match std::fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_folder, path) = short(folder, name)?;
    UnixListener::bind(path)
}

pub(crate) fn connect(folder: &Path, name: &str) -> io::Result<StdUnixStream> {
    let (_folder, path) = short(folder, name)?;
    StdUnixStream::connect(path)
}

pub(crate) fn stream(socket: StdUnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Connects to one of a machine's sockets.
pub(crate) fn open(folder: &Path, name: &str) -> io::Result<UnixStream> {
    stream(connect(folder, name)?)
}
