//! A PostgreSQL of the tests' own.
//!
//! It is started, stopped and in the end removed by a process of its own (this very binary, see [`supervisor`]), which
//! notices the end of the tests, however they end, by the end of its standard input.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::process::Command;

/// Tells the test binary that it is the supervisor; holds further settings of the server, one a line.
const SUPERVISE: &str = "PGSTORE_TEST_SUPERVISE";
/// Comes in without a password: working one out takes long where nothing is optimized.
const USER: &str = "photon";
/// Comes in with one only. To be made with [`Server::guarded`].
pub const GUARDED: &str = "guarded";
pub const PASSWORD: &str = "cor%rect horse";
/// In the settings: a small disk of its own is wanted.
const SMALL_DISK: &str = "# small disk";
/// A new database takes 8 MB of it.
const SMALL_DISK_OPTIONS: &str = "size=24m";
/// What can be removed from it.
const FILLER_BYTES: usize = 4 * 1024 * 1024;
const START_MAX: Duration = Duration::from_mins(2);
const STOP_MAX: Duration = Duration::from_mins(1);

pub struct Server {
    port: u16,
    dir: PathBuf,
    /// Its input and output: one command, one line in answer.
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    process: Mutex<Child>,
}

/// One for all tests that do it no harm; `Err` says why there is none.
pub fn shared() -> Result<&'static Server, String> {
    static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
    SHARED.get_or_init(|| Server::start("")).as_ref().map_err(Clone::clone)
}

/// A schema that no other test has.
pub fn schema() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("case_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where Debian and others have it.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders
        .into_iter()
        .find(|folder| ["initdb", "postgres", "pg_isready"].iter().all(|name| folder.join(name).exists()))
}

impl Server {
    /// `settings`: lines for `postgresql.conf`.
    pub fn start(settings: &str) -> Result<Self, String> {
        if programs().is_none() {
            return Err("no PostgreSQL server (Debian: postgresql)".into());
        }
        let mut supervisor = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::supervisor", "--nocapture", "--test-threads=1"])
            .env(SUPERVISE, settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the keyboard ends the tests, and that ends the supervisor.
            .process_group(0)
            .spawn()
            .unwrap();
        let pipes = (supervisor.stdin.take().unwrap(), BufReader::new(supervisor.stdout.take().unwrap()));
        let mut server =
            Self { port: 0, dir: PathBuf::new(), pipes: Mutex::new(pipes), process: Mutex::new(supervisor) };
        let ready = server.heard("ready");
        let (port, dir) = ready.split_once(' ').unwrap();
        if port == "-" {
            return Err(dir.to_owned());
        }
        server.port = port.parse().unwrap();
        server.dir = dir.into();
        Ok(server)
    }

    /// With [`Server::small_disk`], which only the server sees.
    pub fn start_with_small_disk() -> Result<Self, String> {
        Self::start(SMALL_DISK)
    }

    pub fn small_disk(&self) -> PathBuf {
        self.dir.join("small/space")
    }

    pub fn make_room(&self) {
        self.tell("room");
    }

    /// The rest of the next line that begins with `word`: the test harness has its own lines.
    fn heard(&self, word: &str) -> String {
        let pipes = &mut *self.pipes.lock().unwrap();
        for line in (&mut pipes.1).lines() {
            if let Some(rest) = line.unwrap().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
        panic!("the supervisor of PostgreSQL ended");
    }

    fn tell(&self, word: &str) {
        writeln!(self.pipes.lock().unwrap().0, "{word}").unwrap();
        self.heard("done");
    }

    /// As an administrator does it: sessions are ended.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// As a power cut does it, for all that its processes know.
    pub fn crash(&self) {
        self.tell("crash");
    }

    pub fn run(&self) {
        self.tell("start");
    }

    pub fn url(&self, schema: &str) -> String {
        self.url_with(&format!("schema={schema}&sslmode=disable"))
    }

    pub fn url_with(&self, options: &str) -> String {
        self.url_as(USER, "", "postgres", options)
    }

    pub fn url_as(&self, user: &str, password: &str, database: &str, options: &str) -> String {
        let password = password.replace('%', "%25").replace(' ', "%20");
        format!("postgres://{user}:{password}@localhost:{}/{database}?{options}", self.port)
    }

    /// A session of an administrator.
    pub async fn admin(&self) -> tokio_postgres::Client {
        let config: tokio_postgres::Config = self.url_with("sslmode=disable").parse().unwrap();
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Makes the user that needs a password.
    pub async fn guarded(&self) {
        let made = format!(
            "CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE postgres TO {GUARDED}"
        );
        self.admin().await.batch_execute(&made).await.unwrap();
    }

    /// The certificate of the authority that signed the server's, which is for `localhost`.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok((stdin, _)) = self.pipes.get_mut() {
            let _ = writeln!(stdin, "end");
        }
        if let Ok(process) = self.process.get_mut() {
            let _ = process.wait();
        }
    }
}

/// The body of the supervisor. Started as a test of its own it has nothing to do.
#[tokio::test]
async fn supervisor() {
    let Ok(settings) = std::env::var(SUPERVISE) else { return };
    let programs = programs().unwrap();
    let owner = Owner::find();
    let dir = tempfile::Builder::new().prefix("pgstore-").tempdir().unwrap();
    owner.own(dir.path());
    if settings.contains(SMALL_DISK)
        && let Err(error) = small_disk(&owner, dir.path())
    {
        println!("\nready - no small disk can be mounted: {error}");
        return;
    }
    let port = prepare(&programs, &owner, dir.path(), &settings).await;
    let mut postgres = Some(start(&programs, &owner, dir.path(), port).await);
    println!("\nready {port} {}", dir.path().display());
    let mut commands = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(command)) = commands.next_line().await {
        match &command[..] {
            "stop" => end(postgres.take(), rustix::process::Signal::INT).await,
            "crash" => end(postgres.take(), rustix::process::Signal::QUIT).await,
            "start" => postgres = Some(start(&programs, &owner, dir.path(), port).await),
            "room" => std::fs::remove_file(dir.path().join("small/filler")).unwrap(),
            _ => break,
        }
        println!("\ndone");
    }
    end(postgres.take(), rustix::process::Signal::QUIT).await;
    if settings.contains(SMALL_DISK) {
        rustix::mount::unmount(dir.path().join("small"), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    drop(dir);
    // Nobody reads what the test harness would have to say now.
    std::process::exit(0);
}

/// PostgreSQL refuses to run as root.
struct Owner(Option<(u32, u32)>);

impl Owner {
    fn find() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let ids = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
            Some((fields.next()??, fields.next()??))
        };
        Self(Some(ids("postgres").or_else(|| ids("nobody")).unwrap()))
    }

    fn own(&self, path: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command.env_remove(SUPERVISE).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command
    }
}

async fn prepare(programs: &Path, owner: &Owner, dir: &Path, settings: &str) -> u16 {
    let data = dir.join("data");
    let made = owner
        .command(&programs.join("initdb"))
        .arg("-D")
        .arg(&data)
        .args(["-U", USER, "--auth=trust", "--no-locale", "-E", "UTF8", "--no-sync"])
        .status();
    assert!(made.await.unwrap().success(), "initdb");
    std::fs::write(
        data.join("pg_hba.conf"),
        format!("host all {GUARDED} samehost scram-sha-256\nhost all all samehost trust\n"),
    )
    .unwrap();
    certificates(owner, dir);
    // Taken by somebody else meanwhile: then the start fails, and says so.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = dir.display();
    let configured = format!(
        "listen_addresses = 'localhost'\nport = {port}\nunix_socket_directories = '{dir}'\nmax_connections = 300\n\
         fsync = off\nshared_buffers = 32MB\nlog_min_messages = panic\nlogging_collector = off\n\
         ssl = on\nssl_cert_file = '{dir}/server.pem'\nssl_key_file = '{dir}/server.key'\n{settings}\n"
    );
    std::fs::write(data.join("postgresql.auto.conf"), configured).unwrap();
    port
}

/// In a mount namespace of this thread, from which the server is started: so it goes with them.
fn small_disk(owner: &Owner, dir: &Path) -> std::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // SAFETY: of what threads share, only the mounts are given up; other threads go on with theirs.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let path = dir.join("small");
    std::fs::create_dir(&path)?;
    let options = std::ffi::CString::new(SMALL_DISK_OPTIONS)?;
    mount("none", &path, "tmpfs", MountFlags::empty(), Some(&*options))?;
    std::fs::write(path.join("filler"), vec![0; FILLER_BYTES])?;
    std::fs::create_dir(path.join("space"))?;
    owner.own(&path.join("space"));
    Ok(())
}

fn certificates(owner: &Owner, dir: &Path) {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    for (name, content) in
        [("authority.pem", authority.pem()), ("server.pem", server.pem()), ("server.key", server_key.serialize_pem())]
    {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        owner.own(&path);
    }
}

async fn start(programs: &Path, owner: &Owner, dir: &Path, port: u16) -> tokio::process::Child {
    let mut command = owner.command(&programs.join("postgres"));
    command.arg("-D").arg(dir.join("data"));
    // SAFETY: the hook makes one system call and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            // Should the supervisor be killed, nobody else would end it.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::QUIT))?;
            Ok(())
        });
    }
    let mut postgres = command.spawn().unwrap();
    let ready = async {
        loop {
            let mut asking = owner.command(&programs.join("pg_isready"));
            asking.args(["-q", "-h", "localhost", "-p", &port.to_string()]);
            if asking.status().await.unwrap().success() {
                return;
            }
            assert!(postgres.try_wait().unwrap().is_none(), "PostgreSQL ended at its start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(START_MAX, ready).await.expect("PostgreSQL starts");
    postgres
}

async fn end(postgres: Option<tokio::process::Child>, signal: rustix::process::Signal) {
    let Some(mut postgres) = postgres else { return };
    if let Some(id) = postgres.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
        rustix::process::kill_process(id, signal).unwrap();
        tokio::time::timeout(STOP_MAX, postgres.wait()).await.expect("PostgreSQL stops").unwrap();
    }
}
