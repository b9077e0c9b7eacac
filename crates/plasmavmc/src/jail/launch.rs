//! Starting a program inside of the jail.
//!
//! All walls are written down before the fork as a list of [`Call`]s; between fork and exec the child does nothing but
//! walk the list, because in a copy of a program with many threads nothing may allocate or lock. When a call fails the
//! child reports its number through a pipe and dies; the parent turns the number into the act's name.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr;

use super::cgroup::Group;
use super::root;

/// The walls of one process.
#[derive(Debug)]
pub struct Plan<'a> {
    /// User and group.
    pub uid: u32,
    pub group: &'a Group,
    /// An empty folder; the jail's root is mounted over it where no one else sees it.
    pub mount_point: &'a Path,
    pub root: root::Layout<'a>,
    pub limits: Limits,
    /// Open descriptors that the program keeps, under their own numbers. All others close.
    pub keep: Vec<RawFd>,
}

/// Bounds of setrlimit(2).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub open_files: u64,
    /// The largest file it can write, in bytes.
    pub file_bytes: u64,
    pub processes: u64,
}

/// A process that went through all walls and became the program.
#[derive(Debug)]
pub struct Started {
    pub child: Child,
    /// What the program says on its standard error.
    pub errors: OwnedFd,
}

/// Why it did not.
#[derive(Debug)]
pub struct Refused {
    pub act: String,
    pub source: io::Error,
}

/// One system call of the child, with everything it needs at hand.
#[derive(Debug)]
pub(super) enum Call {
    Session,
    Join(RawFd),
    Unshare(libc::c_int),
    Mount { source: CString, target: CString, kind: CString, flags: libc::c_ulong, data: CString },
    Folder(CString, libc::mode_t),
    EmptyFile(CString),
    Symlink { to: CString, at: CString },
    Node { at: CString, mode: libc::mode_t, device: libc::dev_t, owner: u32 },
    Enter(CString),
    Limit { resource: u32, value: u64 },
    CloseAllOnExec,
    Keep(RawFd),
    DropGroups,
    DropBounds,
    Group(u32),
    User(u32),
    NoNewPrivileges,
    Mask,
}

pub(super) struct Act {
    pub name: String,
    pub call: Call,
}

/// Starts `program` behind all walls of `plan`. Blocks for a fork and some tens of calls.
pub fn start(program: &Path, arguments: &[OsString], plan: &Plan) -> Result<Started, Refused> {
    // The kernel gives new process numbers to the children of the thread that asks, from then on: so one thread asks,
    // has this child, and ends.
    let numbered_anew = || {
        // SAFETY: a plain system call that concerns this thread's next children alone.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } < 0 {
            let act = "leaving the host's process numbers".to_owned();
            return Err(Refused { act, source: io::Error::last_os_error() });
        }
        start_here(program, arguments, plan)
    };
    std::thread::scope(|scope| {
        let ended = || Refused { act: "starting a thread".to_owned(), source: io::ErrorKind::Other.into() };
        scope.spawn(numbered_anew).join().unwrap_or_else(|_| Err(ended()))
    })
}

fn start_here(program: &Path, arguments: &[OsString], plan: &Plan) -> Result<Started, Refused> {
    let prepare = |act: &str| {
        let act = act.to_owned();
        move |source| Refused { act, source }
    };
    let doors = plan.group.doors().map_err(prepare("opening the cgroup"))?;
    let acts = acts(plan, &doors).map_err(prepare("writing the plan"))?;
    let (mut report, reporter) = io::pipe().map_err(prepare("making a pipe"))?;
    let (errors, errors_end) = io::pipe().map_err(prepare("making a pipe"))?;
    let (names, calls): (Vec<_>, Vec<_>) = acts.into_iter().map(|act| (act.name, act.call)).unzip();

    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(errors_end));
    let reporter_number = reporter.as_raw_fd();
    let walk = move || {
        for (number, call) in calls.iter().enumerate() {
            if let Err(error) = call.perform() {
                let number = (number as u32).to_le_bytes();
                // SAFETY: `number` is four bytes that live through the call; the descriptor was open at the fork.
                unsafe { libc::write(reporter_number, number.as_ptr().cast(), number.len()) };
                return Err(error);
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls on memory prepared before the fork; it neither allocates nor locks.
    unsafe { command.pre_exec(walk) };
    let started = command.spawn();
    // Our ends must be gone, so that the reads below end.
    drop(command);
    drop(reporter);
    drop(doors);
    match started {
        Ok(child) => Ok(Started { child, errors: errors.into() }),
        Err(source) => {
            let mut number = [0; 4];
            let act = match report.read_exact(&mut number) {
                Ok(()) => names.get(u32::from_le_bytes(number) as usize).cloned().unwrap_or_default(),
                Err(_) => format!("starting {}", program.display()),
            };
            Err(Refused { act, source })
        }
    }
}

fn acts(plan: &Plan, doors: &[File]) -> io::Result<Vec<Act>> {
    let mut acts = Vec::new();
    let mut add = |name: &str, call| acts.push(Act { name: name.to_owned(), call });
    add("starting a session", Call::Session);
    for door in doors {
        add("joining the cgroup", Call::Join(door.as_raw_fd()));
    }
    add(
        "leaving the host's namespaces",
        Call::Unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS),
    );
    root::acts(&plan.root, plan.mount_point, plan.uid, &mut acts)?;
    let mut add = |name: &str, call| acts.push(Act { name: name.to_owned(), call });
    let limits = [
        ("core", libc::RLIMIT_CORE, 0),
        ("open files", libc::RLIMIT_NOFILE, plan.limits.open_files),
        ("file size", libc::RLIMIT_FSIZE, plan.limits.file_bytes),
        ("processes", libc::RLIMIT_NPROC, plan.limits.processes),
        ("locked memory", libc::RLIMIT_MEMLOCK, 0),
        ("message queues", libc::RLIMIT_MSGQUEUE, 0),
    ];
    for (name, resource, value) in limits {
        add(&format!("limiting {name}"), Call::Limit { resource, value });
    }
    add("closing what is not its own", Call::CloseAllOnExec);
    for &descriptor in &plan.keep {
        add("keeping a descriptor", Call::Keep(descriptor));
    }
    add("setting the file mode mask", Call::Mask);
    add("leaving all groups", Call::DropGroups);
    add("dropping the capability bounds", Call::DropBounds);
    add("becoming its group", Call::Group(plan.uid));
    add("becoming its user", Call::User(plan.uid));
    add("giving up new privileges", Call::NoNewPrivileges);
    Ok(acts)
}

impl Call {
    /// Runs between fork and exec: system calls only.
    fn perform(&self) -> io::Result<()> {
        // SAFETY: each call gets descriptors that were open at the fork and strings with terminators owned by `self`;
        // none keeps a pointer. They are plain system calls and may be made between fork and exec.
        let result = unsafe {
            match self {
                Call::Session => i64::from(libc::setsid()),
                Call::Join(door) => libc::write(*door, b"0".as_ptr().cast(), 1) as i64,
                Call::Unshare(flags) => i64::from(libc::unshare(*flags)),
                Call::Mount { source, target, kind, flags, data } => {
                    let data = data.as_ptr().cast();
                    i64::from(libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), *flags, data))
                }
                Call::Folder(path, mode) => i64::from(libc::mkdir(path.as_ptr(), *mode)),
                Call::EmptyFile(path) => {
                    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
                    let descriptor = libc::open(path.as_ptr(), flags, 0o444 as libc::c_uint);
                    if descriptor >= 0 { i64::from(libc::close(descriptor)) } else { -1 }
                }
                Call::Symlink { to, at } => i64::from(libc::symlink(to.as_ptr(), at.as_ptr())),
                Call::Node { at, mode, device, owner } => {
                    if libc::mknod(at.as_ptr(), *mode, *device) < 0 || libc::chown(at.as_ptr(), *owner, *owner) < 0 {
                        -1
                    } else {
                        // The file mode mask of the parent does not count.
                        i64::from(libc::chmod(at.as_ptr(), *mode & 0o777))
                    }
                }
                // The old root is put under the new one and let go: after this no path leads out.
                Call::Enter(path) => {
                    let here = c".".as_ptr();
                    if libc::chdir(path.as_ptr()) < 0
                        || libc::syscall(libc::SYS_pivot_root, here, here) < 0
                        || libc::umount2(here, libc::MNT_DETACH) < 0
                    {
                        -1
                    } else {
                        i64::from(libc::chdir(c"/".as_ptr()))
                    }
                }
                Call::Limit { resource, value } => {
                    let limit = libc::rlimit { rlim_cur: *value, rlim_max: *value };
                    i64::from(libc::setrlimit(*resource as _, &raw const limit))
                }
                Call::CloseAllOnExec => {
                    let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
                    libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC)
                }
                Call::Keep(descriptor) => i64::from(libc::fcntl(*descriptor, libc::F_SETFD, 0)),
                Call::DropGroups => i64::from(libc::setgroups(0, ptr::null())),
                Call::DropBounds => {
                    let mut result = 0;
                    for capability in 0..CAPABILITIES_MAX {
                        if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                            // The first number that the kernel does not know ends the list.
                            if *libc::__errno_location() != libc::EINVAL || capability == 0 {
                                result = -1;
                            }
                            break;
                        }
                    }
                    result
                }
                Call::Group(gid) => i64::from(libc::setresgid(*gid, *gid, *gid)),
                Call::User(uid) => i64::from(libc::setresuid(*uid, *uid, *uid)),
                Call::NoNewPrivileges => i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
                Call::Mask => {
                    libc::umask(0o077);
                    0
                }
            }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// More than any kernel has; they are numbered without gaps.
const CAPABILITIES_MAX: libc::c_ulong = 64;

/// A path with its terminator.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The place of `inside` (absolute, as the jailed process sees it) below the mount point.
pub(super) fn below(mount_point: &Path, inside: &Path) -> PathBuf {
    mount_point.join(inside.strip_prefix("/").unwrap_or(inside))
}
