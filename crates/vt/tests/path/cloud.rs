//! One cloud for all scenarios, and the clients that talk to it.

use std::cell::RefCell;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const VT: &str = env!("CARGO_BIN_EXE_vt");
/// The longest that a whole rollout of a few machines takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_mins(4);

/// What keeps these tests from running here.
pub fn missing() -> Option<String> {
    if std::env::var_os("VT_QUICK").is_some() {
        return Some("VT_QUICK is set: no machines are started".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let programs = ["qemu-system-x86_64", "nft", "umoci", "skopeo", "docker-registry", "curl", "ab"];
    let gone: Vec<_> = programs.into_iter().filter(|program| which(program).is_none()).collect();
    if gone.is_empty() { None } else { Some(format!("not installed: {}", gone.join(", "))) }
}

pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A port that was free a moment ago, on loopback.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Cloud {
    pub folder: PathBuf,
    pub api_port: u16,
    pub http_port: u16,
    pub tls_port: u16,
    pub keyspace_port: u16,
    /// OCI layout with the sample images.
    pub layout: PathBuf,
    /// More environment: of the store, where it is not in the data folder.
    settings: Vec<(&'static str, String)>,
    child: RefCell<Option<Child>>,
}

/// What a run of `vt` gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

fn target() -> PathBuf {
    Path::new(VT).parent().unwrap().parent().unwrap().to_owned()
}

impl Cloud {
    /// Makes the sample images, fetches the guest kernel once for all runs, and starts a cloud in a new folder.
    pub fn start() -> Self {
        let folder = target().join("path-test");
        // What a run that was cut off left running; nobody else knows these machines once their folder is gone.
        let beside = fs::read_dir(folder.join("beside")).into_iter().flatten().flatten().map(|entry| entry.path());
        for data in beside.chain([folder.clone()]).map(|cloud| cloud.join("data")) {
            if data.join("identity.json").exists() {
                for pid in qemus(&data) {
                    Command::new("kill").args(["-9", &pid.to_string()]).status().ok();
                }
            }
        }
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).unwrap();
        let samples = target().join("sample");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let made = Command::new(env!("CARGO"))
            .current_dir(root)
            .args(["run", "--quiet", "--package", "xtask", "--", "sample"])
            .arg(&samples)
            .status()
            .unwrap();
        assert!(made.success(), "the sample images could not be made");
        let cloud = Self {
            folder,
            api_port: free_port(),
            http_port: free_port(),
            tls_port: free_port(),
            keyspace_port: free_port(),
            layout: samples.join("layout"),
            settings: Vec::new(),
            child: RefCell::new(None),
        };
        cloud.up();
        cloud
    }

    /// Another cloud on this machine, not started yet, with its store at `store`. It has this one's kernels.
    pub fn beside(&self, name: &str, store: &str) -> Self {
        let folder = self.folder.join("beside").join(name);
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(folder.join("data")).unwrap();
        let copied = Command::new("cp").arg("-al").arg(self.data().join("kernels")).arg(folder.join("data")).status();
        assert!(copied.unwrap().success());
        Self {
            folder,
            api_port: free_port(),
            http_port: free_port(),
            tls_port: free_port(),
            keyspace_port: free_port(),
            layout: self.layout.clone(),
            settings: vec![("VT_STORE_URL", store.to_owned())],
            child: RefCell::new(None),
        }
    }

    /// With settings of its own on top.
    pub fn with(mut self, settings: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.settings.extend(settings);
        self
    }

    fn environment(&self, command: &mut Command) {
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("VT_")) {
            command.env_remove(key);
        }
        command
            .env("VT_CONFIG", self.folder.join("client.toml"))
            .env("VT_DATA_DIR", self.data())
            .env("VT_API_LISTEN", format!("127.0.0.1:{}", self.api_port))
            .env("VT_INGRESS_HTTP", format!("127.0.0.1:{}", self.http_port))
            .env("VT_INGRESS_TLS", format!("127.0.0.1:{}", self.tls_port))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .env("VT_KEYSPACE_LISTEN", format!("127.0.0.1:{}", self.keyspace_port))
            .env("VT_NODE_NAME", "here")
            .env("VT_LOG", std::env::var("VT_LOG").unwrap_or_else(|_| "info,hyper=warn".to_owned()))
            .env("NO_COLOR", "1");
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn log_file(&self) -> PathBuf {
        self.folder.join("cloud.log")
    }

    /// Starts `vt up` and waits until the API answers.
    pub fn up(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(VT);
        command.arg("up").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.environment(&mut command);
        // Found out by a probe of its own elsewhere; here it would cost each run ten seconds.
        command.env("VT_VM_ACCELERATOR", "tcg");
        *self.child.borrow_mut() = Some(command.spawn().unwrap());
        self.eventually("the API answers", || {
            let mut child = self.child.borrow_mut();
            if let Some(status) = child.as_mut().unwrap().try_wait().unwrap() {
                panic!("vt up ended: {status}\n{}", self.last_words());
            }
            drop(child);
            let health = curl(&["-k", &format!("https://127.0.0.1:{}/ready", self.api_port)]);
            // The command line's context is written a moment after the API listens.
            let known = self.folder.join("client.toml").exists();
            (known && health.code == 0 && health.stdout.contains("ready")).then_some(())
        });
    }

    /// SIGKILL, as when the power of the process goes.
    pub fn kill(&self) {
        let mut child = self.child.borrow_mut().take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(&self) -> i32 {
        let mut child = self.child.borrow_mut().take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap().code().unwrap_or(-1)
    }

    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// A `vt` command in `folder`, ready to be changed and run.
    pub fn command(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(VT);
        command.current_dir(folder).args(arguments).stdin(Stdio::null());
        self.environment(&mut command);
        command
    }

    pub fn vt(&self, folder: &Path, arguments: &[&str]) -> Ran {
        println!("    $ vt {}", arguments.join(" "));
        Ran::of(self.command(folder, arguments).output().unwrap())
    }

    /// A `vt` command with `input` on its standard input.
    pub fn vt_with_input(&self, folder: &Path, arguments: &[&str], input: &str) -> Ran {
        use std::io::Write;
        println!("    $ vt {}  < (input)", arguments.join(" "));
        let mut command = self.command(folder, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// A new app's folder with a manifest for `tag` of the sample images.
    pub fn app(&self, name: &str, tag: &str, replicas: u32) -> PathBuf {
        let folder = self.folder.join("apps").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vt.toml"), self.manifest(name, tag, replicas)).unwrap();
        folder
    }

    pub fn manifest(&self, name: &str, tag: &str, replicas: u32) -> String {
        format!(
            "schema_version = \"v1\"\n\n[app]\nname = \"{name}\"\n\n[image]\nref = \"oci:{}:{tag}\"\n\n\
             [processes.web]\nresources = {{ memory = \"128Mi\", disk = \"1Gi\" }}\nscaling = {{ min = {replicas}, max = 5 }}\n\
             [[processes.web.ports]]\nname = \"http\"\ninternal = 8080\n\
             [processes.web.health]\ntype = \"http\"\nport = \"http\"\npath = \"/healthz\"\n",
            self.layout.display()
        )
    }

    /// GET of the app's URL through the ingress.
    pub fn get(&self, url: &str) -> Ran {
        // The names end in .localhost; an old resolver may not know them, so curl is told.
        let host = url.trim_start_matches("http://").split(':').next().unwrap_or_default();
        curl(&["-i", "--resolve", &format!("{host}:{}:127.0.0.1", self.http_port), url])
    }

    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "not within {} s: {what}\n{}", PATIENCE.as_secs(), self.last_words());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The rows of a kind, through the CLI.
    #[track_caller]
    pub fn list(&self, folder: &Path, noun: &str) -> Vec<Value> {
        let ran = Ran::of(self.command(folder, &[noun, "list", "--json"]).output().unwrap()).ok();
        ran.json()["items"].as_array().unwrap().clone()
    }

    /// A request to the API with a token; status and body.
    pub fn api(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("https://127.0.0.1:{}{path}", self.api_port);
        let authority = self.data().join("tls/ca.pem").display().to_string();
        let bearer = format!("Authorization: Bearer {token}");
        let mut arguments = vec!["--cacert", &authority, "-H", &bearer, "-X", method, "-w", "\n%{http_code}", &url];
        let text = body.map(ToString::to_string);
        if let Some(text) = &text {
            arguments.extend(["-H", "Content-Type: application/json", "-d", text]);
        }
        let ran = curl(&arguments);
        let (body, status) = ran.stdout.rsplit_once('\n').unwrap_or(("", "0"));
        (status.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    pub fn admin(&self) -> String {
        fs::read_to_string(self.data().join("admin.token")).unwrap().trim().to_owned()
    }

    /// Removes every app, ends the cloud, and looks that nothing is left behind.
    pub fn stop(&self) {
        if self.child.borrow().is_some() {
            let admin = self.admin();
            let (_, apps) = self.api(&admin, "GET", "/v1/apps?limit=200", None);
            for app in apps["items"].as_array().into_iter().flatten() {
                self.api(&admin, "DELETE", &format!("/v1/apps/{}", app["id"].as_str().unwrap()), None);
            }
            self.eventually("all machines are gone", || {
                let (_, rows) = self.api(&admin, "GET", "/v1/apps", None);
                (qemus(&self.data()).is_empty() && rows["items"].as_array().is_some_and(Vec::is_empty)).then_some(())
            });
            let table = format!("vt_{}", tag(&self.data()));
            self.terminate();
            let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
            assert!(
                !String::from_utf8_lossy(&tables.stdout).contains(&table),
                "the packet filter of an idle cloud is left behind"
            );
        }
    }
}

/// What tells this cloud's devices and processes from another's on the same machine.
pub fn tag(data: &Path) -> String {
    let identity: Value = serde_json::from_slice(&fs::read(data.join("identity.json")).unwrap()).unwrap();
    identity["tag"].as_str().unwrap().to_owned()
}

/// The processes of the machines of the cloud with this data folder.
pub fn qemus(data: &Path) -> Vec<i32> {
    let mark = format!("vt-{}-vm_", tag(data));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&mark) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

pub fn curl(arguments: &[&str]) -> Ran {
    Ran::of(Command::new("curl").args(["-sS", "-m", "20"]).args(arguments).output().unwrap())
}
