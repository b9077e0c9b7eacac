//! What the tests stand on: a guest init, a kernel, a root image, an engine that cleans up after itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use model::guest;
use plasmavmc::kernel::Source;
use plasmavmc::qemu::Accelerator;
use plasmavmc::{Config, Engine, ExecRequest, Handle, Seen, Service, Spec, UID_BASE};
use tokio::sync::OnceCell;

/// A boot takes two seconds here; a machine that also builds takes longer.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Where slow things are kept between runs.
pub fn cache() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plasmavmc");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Everything a machine needs, or why it cannot be had.
pub struct Ground {
    pub init: &'static [u8],
    pub root_image: PathBuf,
    pub kernels: PathBuf,
}

/// `None` after saying `skipped: REASON`.
pub async fn ground() -> Option<&'static Ground> {
    static GROUND: OnceCell<Result<Ground, String>> = OnceCell::const_new();
    match GROUND.get_or_init(lay).await {
        Ok(ground) => Some(ground),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

async fn lay() -> Result<Ground, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    for program in ["qemu-system-x86_64", "mkfs.ext4", "mkfs.erofs", "apt-get", "ip"] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(format!("{program} is not installed"));
        }
    }
    let init = tokio::task::spawn_blocking(guest_init).await.unwrap();
    let root_image = tokio::task::spawn_blocking(root_image).await.unwrap()?;
    let kernels = cache().join("kernels");
    let prepared = plasmavmc::kernel::prepare(&kernels, &Source::Debian, init, &|step| println!("{step}")).await;
    prepared.map_err(|error| error.to_string())?;
    Ok(Ground { init, root_image, kernels })
}

/// Builds the guest's PID 1 as the product does: static, small, for its own target folder.
fn guest_init() -> &'static [u8] {
    static BYTES: OnceLock<&'static [u8]> = OnceLock::new();
    BYTES.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = workspace.join("target/guest");
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "-p",
                "guest-init",
                "--target",
                "x86_64-unknown-linux-gnu",
                "--profile",
                "guest",
            ])
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .current_dir(&workspace)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::read(target.join("x86_64-unknown-linux-gnu/guest/guest-init")).unwrap().leak()
    })
}

/// busybox and little else, read-only.
fn root_image() -> Result<PathBuf, String> {
    let image = cache().join("root.erofs");
    if image.is_file() {
        return Ok(image);
    }
    let work = tempfile::tempdir_in(cache()).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(work.path())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
        }
    };
    run("apt-get", &["-q", "-o", "APT::Sandbox::User=root", "download", "busybox-static"])?;
    let package =
        fs::read_dir(work.path()).unwrap().flatten().map(|entry| entry.path()).find(|path| path.extension().is_some());
    run("dpkg-deb", &["-x", &package.ok_or("no package came")?.to_string_lossy(), "unpacked"])?;
    let root = work.path().join("root");
    for folder in ["bin", "etc", "www", "tmp", "proc", "sys", "dev", "run", "var"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| work.path().join("unpacked").join(path));
    fs::copy(busybox.iter().find(|path| path.is_file()).unwrap(), root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "httpd", "cat", "echo", "sleep", "id", "dd", "kill", "poweroff", "ls", "touch", "seq", "true", "false",
        "head",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("www/index.html"), "hello from a microVM\n").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    run("mkfs.erofs", &["--quiet", "--all-root", "made.erofs", "root"])?;
    fs::rename(work.path().join("made.erofs"), &image).unwrap();
    Ok(image)
}

/// A folder and a tag of its own. Its machines are gone when it is dropped.
pub struct Ward {
    pub config: Config,
    folder: tempfile::TempDir,
}

impl Ward {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// An engine in a ward.
pub struct Bench {
    pub engine: Handle,
    ward: Ward,
}

impl std::ops::Deref for Bench {
    type Target = Ward;

    fn deref(&self) -> &Ward {
        &self.ward
    }
}

impl Bench {
    pub fn config(ground: &Ground, state_dir: PathBuf) -> Config {
        Config {
            state_dir,
            kernel_dir: ground.kernels.clone(),
            kernel_source: Source::Debian,
            guest_init: ground.init,
            uid_base: UID_BASE,
            instance_tag: world::random::hex(4),
            vms_max: 8,
            accelerator: Some(Accelerator::Tcg),
        }
    }

    /// No engine has been opened in it yet.
    pub async fn closed(ground: &Ground) -> Ward {
        let folder = tempfile::tempdir().unwrap();
        Ward { config: Self::config(ground, folder.path().join("vms")), folder }
    }

    pub async fn open(ground: &Ground) -> Self {
        let ward = Self::closed(ground).await;
        let engine = Service::open(ward.config.clone()).await.unwrap();
        Self { engine, ward }
    }

    /// The engine goes; what it left stays until the ward is dropped.
    pub async fn close(self) -> Ward {
        self.engine.close().await;
        self.ward
    }

    /// Waits until `holds` of what is seen, looking at each change.
    pub async fn until(&self, id: &str, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        until(&self.engine, id, what, holds).await
    }
}

pub async fn until(engine: &Handle, id: &str, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
    let mut changes = engine.changes();
    let wait = async {
        loop {
            if let Some(seen) = engine.observe(id).filter(&holds) {
                return seen;
            }
            // Also by time: what is waited for may not be the engine's own change.
            let _ = tokio::time::timeout(Duration::from_millis(200), changes.recv()).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(seen) => seen,
        Err(_) => {
            let console = engine.console_tail(id, 4000).unwrap_or_default();
            panic!("{id} is not {what}: {:#?}\nconsole:\n{console}", engine.observe(id));
        }
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        for pid in pids(&self.config.instance_tag) {
            kill(pid);
        }
        let ours = format!("photon-{}", self.config.instance_tag);
        for _ in 0..100 {
            let left: Vec<_> = cgroups(&ours);
            for folder in left.iter().rev() {
                let _ = fs::remove_dir(folder);
            }
            if cgroups(&ours).is_empty() {
                return;
            }
            let _ = Command::new("sleep").arg("0.05").status();
        }
    }
}

/// The folders of an installation's cgroups, parents first.
pub fn cgroups(ours: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for top in [root.path(), root.path().join(ours)] {
            let top = if top.ends_with(ours) { top } else { continue };
            if top.is_dir() {
                found.push(top.clone());
                found.extend(
                    fs::read_dir(top)
                        .into_iter()
                        .flatten()
                        .flatten()
                        .map(|entry| entry.path())
                        .filter(|path| path.is_dir()),
                );
            }
        }
    }
    found
}

/// The processes of an installation's machines.
pub fn pids(tag: &str) -> Vec<u32> {
    let mark = format!("vt-{tag}-");
    let ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split(|&byte| byte == 0);
        arguments.next().is_some_and(|program| program.ends_with(b"qemu-system-x86_64"))
            && arguments.any(|argument| argument.starts_with(mark.as_bytes()))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

pub fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A machine that runs `argv` on the busybox image.
pub fn spec(ground: &Ground, id: &str, number: u32, argv: &[&str]) -> Spec {
    let guest = serde_json::json!({
        "protocol": 1, "instance_id": id, "hostname": id.replace('_', "-"), "machine_id": format!("{number:032x}"),
        "entropy": "", "clock_unix_ns": 0, "root": { "device": "", "fs": "" },
        "process": { "argv": argv, "restart": { "policy": "never" }, "grace_seconds": 5 },
    });
    Spec {
        id: id.to_owned(),
        generation: 1,
        vcpus: 1,
        memory_bytes: 128 << 20,
        cpu_weight: 100,
        root_image: ground.root_image.clone(),
        root_fs: "erofs".to_owned(),
        scratch_bytes: 256 << 20,
        tap: None,
        mac: String::new(),
        uid: UID_BASE + number,
        owner: None,
        sleeps: false,
        guest: serde_json::from_value::<guest::Config>(guest).unwrap(),
    }
}

/// Runs `argv` in the guest to its end; output of both streams, and the exit.
pub async fn exec(engine: &Handle, id: &str, argv: &[&str]) -> (String, guest::Exit) {
    let argv = argv.iter().map(|&one| one.to_owned()).collect();
    let mut session = engine.exec(id, ExecRequest { argv, ..ExecRequest::default() }).await.unwrap();
    session.stdin.finish().await.unwrap();
    let mut output = Vec::new();
    while let Some(chunk) = session.output.next().await {
        output.extend_from_slice(&chunk.data);
    }
    (String::from_utf8(output).unwrap(), session.control.wait().await.unwrap())
}

/// A tap with an address on the host's side, gone when dropped.
pub struct Tap {
    pub name: String,
    /// `10.251.N`
    pub net: String,
}

impl Tap {
    pub fn new(number: u8) -> Self {
        let tap = Self { name: format!("vtt{}", world::random::hex(4)), net: format!("10.251.{number}") };
        let ip = |arguments: &str| {
            let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        ip(&format!("tuntap add dev {} mode tap vnet_hdr", tap.name));
        ip(&format!("addr add {}.1/24 dev {}", tap.net, tap.name));
        ip(&format!("link set {} up", tap.name));
        tap
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.name]).output();
    }
}
