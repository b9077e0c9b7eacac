//! A real registry on loopback, with the sample image in it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cloud::free_port;
use crate::run::{kill_group, output};

const START_MAX: Duration = Duration::from_secs(30);

pub struct Registry {
    process: Child,
    pub address: String,
}

impl Registry {
    /// Starts Debian's docker-registry with its data in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let address = format!("127.0.0.1:{}", free_port(5000)?);
        let config = folder.join("registry.yml");
        let data = folder.join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(folder.join("registry.log"))?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().context("starting docker-registry")?;
        let registry = Self { process, address };
        let deadline = Instant::now() + START_MAX;
        while std::net::TcpStream::connect(&registry.address).is_err() {
            if Instant::now() >= deadline {
                bail!("docker-registry does not listen on {}; its log: {}", registry.address, folder.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Copies `layout:tag` into it and answers the reference.
    pub fn push(&self, layout: &Path, tag: &str) -> Result<String> {
        let reference = format!("{}/sample:{tag}", self.address);
        let from = format!("oci:{}:{tag}", layout.display());
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from]);
        output(copy.arg(format!("docker://{reference}")))?;
        Ok(reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        kill_group(&self.process);
        self.process.wait().ok();
    }
}
