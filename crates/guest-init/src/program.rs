//! A program of the image: found, furnished and started as its user.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::user::Identity;

pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `KEY=VALUE` lists in order, later ones win; `PATH`, `HOME` and, with a terminal, `TERM` are added when absent.
pub fn environment(lists: &[&[String]], identity: &Identity, terminal: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    all.insert("PATH".to_owned(), PATH_DEFAULT.to_owned());
    all.insert("HOME".to_owned(), identity.home.clone());
    if terminal {
        all.insert("TERM".to_owned(), "xterm".to_owned());
    }
    for entry in lists.iter().copied().flatten() {
        // A NUL cannot pass to a program, a name cannot be empty.
        if let Some((key, value)) = entry.split_once('=')
            && !key.is_empty()
            && !entry.contains('\0')
        {
            all.insert(key.to_owned(), value.to_owned());
        }
    }
    all
}

/// Where `name` is: as a shell would look, but without a shell. Relative names with a slash start at `workdir`.
pub fn find(name: &str, path: &str, workdir: &str) -> Result<PathBuf, String> {
    if name.is_empty() || name.contains('\0') {
        return Err("the command has no name".to_owned());
    }
    if name.contains('/') {
        let full = Path::new(workdir).join(name);
        return match fs::metadata(&full) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Ok(full),
            Ok(meta) if meta.is_dir() => Err(format!("{name} is a folder")),
            Ok(_) => Err(format!("{name} is not executable")),
            Err(error) => Err(format!("{name}: {error}")),
        };
    }
    let runs =
        |full: &PathBuf| fs::metadata(full).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let mut folders = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    folders
        .find_map(|dir| Some(Path::new(workdir).join(dir).join(name)).filter(runs))
        .ok_or_else(|| format!("{name} is not in PATH ({path})"))
}

/// Makes the working folder when it is missing, owned by the user who will work there.
pub fn prepare_workdir(workdir: &str, identity: &Identity) -> Result<(), String> {
    if fs::metadata(workdir).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    fs::create_dir_all(workdir).map_err(|error| format!("create the working folder {workdir}: {error}"))?;
    chown(workdir, Some(identity.uid), Some(identity.gid))
        .map_err(|error| format!("give {workdir} to its user: {error}"))
}

/// What to start. `stdio` are the child's descriptors 0, 1, 2.
pub struct Program<'a> {
    pub argv: &'a [String],
    pub env: BTreeMap<String, String>,
    pub workdir: &'a str,
    pub identity: &'a Identity,
    pub stdio: [OwnedFd; 3],
    /// Descriptor 0 is a terminal and becomes the controlling one.
    pub terminal: bool,
    /// `cgroup.procs` of the group to enter.
    pub group: Option<RawFd>,
}

impl Program<'_> {
    /// Starts it as the leader of a session and process group of its own. The caller reaps it.
    ///
    /// # Errors
    /// Text for people: what was not found or not allowed.
    pub fn start(self) -> Result<Pid, String> {
        let name = self.argv.first().map_or("", String::as_str);
        let path = find(name, self.env.get("PATH").map_or(PATH_DEFAULT, String::as_str), self.workdir)?;
        let mut command = Command::new(&path);
        let [input, output, errors] = self.stdio;
        command
            .arg0(name)
            .args(&self.argv[1..])
            .env_clear()
            .envs(&self.env)
            .current_dir(self.workdir)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors));
        let (identity, terminal, group) = (self.identity.clone(), self.terminal, self.group);
        // SAFETY: between fork and exec only raw system calls are made, on memory prepared before the fork.
        unsafe { command.pre_exec(move || become_leader(&identity, terminal, group)) };
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{}: its interpreter or library loader is missing", path.display()),
            _ => format!("{}: {error}", path.display()),
        })?;
        Pid::from_raw(child.id() as i32).ok_or_else(|| "a process without id".to_owned())
    }
}

/// Runs in the child. Everything here is async-signal-safe; the glibc wrappers of the set-id calls are not, because
/// they speak to the other threads of the parent.
fn become_leader(identity: &Identity, terminal: bool, group: Option<RawFd>) -> io::Result<()> {
    let check = |result: libc::c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: plain system calls; the pointers are to live memory of the stated length.
    unsafe {
        check(libc::syscall(libc::SYS_setsid))?;
        if terminal {
            check(libc::c_long::from(libc::ioctl(0, libc::TIOCSCTTY as libc::Ioctl, 0)))?;
        }
        if let Some(fd) = group {
            // A workload outside of its group still runs; it is counted with the machine then.
            libc::write(fd, c"0".as_ptr().cast(), 1);
        }
        // What this program's own parent told it to ignore is no business of the child's.
        for signal in 1..libc::SIGSYS {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        check(libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, identity.gid, identity.gid, identity.gid))?;
        check(libc::syscall(libc::SYS_setresuid, identity.uid, identity.uid, identity.uid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn later_variables_win_and_defaults_fill_in() {
        let root = Identity::root();
        let image = strings(&["PATH=/opt", "A=1", "broken", "=x", "B=2=3", "NUL=\0"]);
        let over = strings(&["A=", "HOME=/srv"]);
        let env = environment(&[&image, &over], &root, false);
        let shown: Vec<_> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["A=", "B=2=3", "HOME=/srv", "PATH=/opt"]);
        let env = environment(&[], &root, true);
        assert_eq!(
            (env["HOME"].as_str(), env["TERM"].as_str(), env["PATH"].as_str()),
            ("/root", "xterm", PATH_DEFAULT)
        );
    }

    #[test]
    fn programs_are_found_as_a_shell_would() {
        assert!(find("sh", PATH_DEFAULT, "/").unwrap().ends_with("sh"));
        assert_eq!(find("/bin/sh", "", "/").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("bin/sh", "", "/").unwrap(), Path::new("/bin/sh"));
        assert!(find("no-such-program", PATH_DEFAULT, "/").unwrap_err().contains("not in PATH"));
        assert!(find("/etc/passwd", "", "/").unwrap_err().contains("not executable"));
        assert!(find("/etc", "", "/").unwrap_err().contains("folder"));
        assert!(find("", PATH_DEFAULT, "/").is_err());
    }
}
