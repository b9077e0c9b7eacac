//! A network namespace with a thread that lives in it, and a mount namespace beside it.

use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

type Job = Box<dyn FnOnce() + Send>;

/// Dropped, its thread ends and the kernel takes the namespace with all that is in it.
pub struct Space {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// The namespace as a path that `ip` takes.
    pub path: String,
}

/// Covers the resolver's configuration for the calling thread.
fn resolve_at(nameserver: &str) {
    if !std::path::Path::new("/etc/resolv.conf").exists() {
        return;
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("nameserver {nameserver}\n")).expect("written");
    // The mount keeps the file after its name is gone.
    mount_bind(file.path(), "/etc/resolv.conf").expect("bound");
}

impl Space {
    pub fn new() -> Self {
        Self::resolving("192.0.2.53")
    }

    /// Its machine asks this nameserver, whichever the real one asks.
    pub fn resolving(nameserver: &'static str) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (born, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS;
            // SAFETY: leaves the other threads' namespaces alone; this thread holds nothing that belongs to the old ones.
            unsafe { unshare_unsafe(flags) }.expect("a namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("mounts of its own");
            resolve_at(nameserver);
            let (process, thread) = (std::process::id(), rustix::thread::gettid());
            born.send(format!("/proc/{process}/task/{}/ns/net", thread.as_raw_nonzero())).unwrap();
            while let Ok(job) = queue.recv() {
                job();
            }
        });
        let space = Self { jobs: Some(jobs), thread: Some(thread), path: path.recv().unwrap() };
        space.ip("link set lo up");
        space
    }

    /// Runs `act` in the namespace and waits for it.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(done.send(act())));
        self.jobs.as_ref().unwrap().send(job).expect("the space's thread lives");
        result.recv().expect("the act did not panic")
    }

    /// A program in the namespace; its output, whole.
    pub fn program(&self, program: &str, words: &str) -> Result<String, String> {
        let mut command = Command::new(program);
        command.args(words.split_whitespace());
        let output = self.run(move || command.output()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    pub fn ip(&self, words: &str) -> String {
        self.program("ip", words).unwrap_or_else(|error| panic!("ip {words}: {error}"))
    }

    pub fn nft(&self, words: &str) -> String {
        self.program("nft", words).unwrap_or_else(|error| panic!("nft {words}: {error}"))
    }

    pub fn sysctl(&self, path: &str) -> String {
        let path = format!("/proc/sys/net/{path}");
        self.run(move || std::fs::read_to_string(path)).unwrap().trim().to_owned()
    }

    pub fn set_sysctl(&self, path: &str, value: &'static str) {
        let path = format!("/proc/sys/net/{path}");
        self.run(move || std::fs::write(path, value)).unwrap();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
