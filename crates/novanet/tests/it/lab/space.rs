//! A network namespace with a thread that lives in it.

use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Dropped, its thread ends and the kernel takes the namespace with all that is in it.
pub struct Space {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// The namespace as a path that `ip` takes.
    pub path: String,
}

impl Space {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (born, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: leaves the other threads' namespace alone; this thread holds nothing that belongs to the old one.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a namespace");
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
