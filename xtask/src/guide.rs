//! Follows a guide word for word: its commands in one shell, its outputs compared with what is printed.
//!
//! ```text
//! ```sh             run, in order, in one bash that stops at the first failure
//! ```sh elsewhere   run in another terminal: started, left running, ended with Ctrl-C at the end
//! ```sh once        not run: how vt is built and found, which the one who follows has done already
//! ```text           what the block before it printed: these lines in this order, `...` stands for anything
//! ```

mod page;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cloud::{self, free_port};
use crate::run::{self, kill_group, output, signal};
use page::{Block, How};

/// Of one block; the first one with a machine makes images and kernels.
const BLOCK_MAX: Duration = Duration::from_mins(10);
const STOP_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The folder below the tree that the guide works in; emptied first.
const FOLDER: &str = "target/first-app";

/// Follows docs/guides/first-app.md with the `vt` in `programs`.
pub fn follow(programs: &Path) -> Result<()> {
    let guide = run::root().join("docs/guides/first-app.md");
    let blocks = page::read(&fs::read_to_string(&guide).context("docs/guides/first-app.md")?);
    let folder = run::root().join(FOLDER);
    let data = folder.join("cloud");
    cloud::sweep(&data);
    fs::remove_dir_all(&folder).ok();
    let notes = run::target().join("guide");
    fs::create_dir_all(&notes)?;
    let mut walk = Walk::start(programs, notes)?;
    let followed = blocks.iter().try_for_each(|block| walk.take(block));
    let ended = walk.end();
    cloud::sweep(&data);
    followed?;
    ended
}

struct Walk {
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
    shell: Child,
    input: ChildStdin,
    elsewhere: Vec<Child>,
    taken: usize,
}

impl Walk {
    fn start(programs: &Path, folder: PathBuf) -> Result<Self> {
        let listen = |port: u16| Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port(port)?));
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let config = folder.join("config.toml");
        fs::remove_file(&config).ok();
        let environment = vec![
            ("PATH", path),
            ("VT_CONFIG", config.display().to_string()),
            ("VT_API_LISTEN", listen(7700)?),
            ("VT_INGRESS_HTTP", listen(8080)?),
            ("VT_INGRESS_TLS", listen(0)?),
            ("VT_KEYSPACE_LISTEN", listen(0)?),
        ];
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-s"]).current_dir(run::root()).envs(environment.clone());
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let mut shell = shell.spawn().context("starting bash")?;
        let input = shell.stdin.take().context("the input of bash")?;
        Ok(Self { environment, folder, shell, input, elsewhere: Vec::new(), taken: 0 })
    }

    fn take(&mut self, block: &Block) -> Result<()> {
        let place = format!("docs/guides/first-app.md, line {}", block.line);
        match block.how {
            How::Once => Ok(()),
            How::Elsewhere => self.elsewhere(block),
            How::Here => self.here(block),
        }
        .with_context(|| place)
    }

    fn here(&mut self, block: &Block) -> Result<()> {
        self.taken += 1;
        for line in block.script.lines() {
            println!("  $ {line}");
        }
        let name = |end: &str| self.folder.join(format!("block-{}.{end}", self.taken));
        let (script, said, done) = (name("sh"), name("out"), name("done"));
        fs::write(&script, &block.script)?;
        fs::remove_file(&done).ok();
        writeln!(self.input, "source {} </dev/null >{} 2>&1; : >{}", script.display(), said.display(), done.display())?;
        let deadline = Instant::now() + BLOCK_MAX;
        while !done.exists() {
            if self.shell.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("the commands failed; they said:\n{}", fs::read_to_string(&said).unwrap_or_default());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        page::compare(&block.expected, &fs::read_to_string(&said)?)
    }

    /// Starts it and waits until the cloud answers, as a person would before going on.
    fn elsewhere(&mut self, block: &Block) -> Result<()> {
        println!("  (elsewhere) $ {}", block.script.trim());
        let log = self.folder.join("elsewhere.log");
        let file = File::create(&log)?;
        let mut terminal = Command::new("bash");
        terminal
            .args(["-c", &format!("exec {}", block.script)])
            .current_dir(run::root())
            .envs(self.environment.clone());
        terminal.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        self.elsewhere.push(terminal.spawn().context("starting bash")?);
        let deadline = Instant::now() + BLOCK_MAX;
        loop {
            let mut ask = Command::new("vt");
            ask.args(["auth", "whoami"]).envs(self.environment.clone());
            if output(&mut ask).is_ok() {
                return Ok(());
            }
            let ended = self.elsewhere.last_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() >= deadline {
                bail!("it does not answer; it said:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ctrl-C in the other terminals. Errors when one does not end well.
    fn end(mut self) -> Result<()> {
        kill_group(&self.shell);
        self.shell.wait()?;
        let mut outcome = Ok(());
        for mut child in self.elsewhere {
            signal(&child, libc::SIGINT);
            let deadline = Instant::now() + STOP_MAX;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
            }
            match child.try_wait()? {
                Some(status) if status.success() => {}
                Some(status) => outcome = Err(anyhow::anyhow!("what ran elsewhere ended with {status}")),
                None => {
                    kill_group(&child);
                    child.wait()?;
                    outcome = Err(anyhow::anyhow!("what ran elsewhere did not end on Ctrl-C"));
                }
            }
        }
        outcome
    }
}
