//! Python's two clients.

use std::path::Path;
use std::process::Command as Installer;

use tokio::process::Command;

use crate::packages::{installed, run};
use crate::program::{port, same};
use crate::servers::etcd;

/// Of 2020: newer versions of what it stands on have changed too much.
const ETCD3: [&str; 4] = ["etcd3==0.12.0", "protobuf==3.20.3", "grpcio==1.62.3", "tenacity==6.3.1"];
const AETCD: [&str; 3] = ["aetcd==1.0.0", "protobuf==5.29.5", "grpcio==1.71.2"];

/// The interpreter that has the packages.
fn interpreter(name: &str, packages: &[&str]) -> Result<std::path::PathBuf, String> {
    let install = |dir: &Path| {
        run(Installer::new("python3").args(["-m", "venv"]).arg(dir))?;
        // By the interpreter: the folder gets its name only when it is complete, and scripts know where they were made.
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Installer::new(dir.join("bin/python")).args(pip).args(packages))
    };
    Ok(installed(name, install)?.join("bin/python"))
}

async fn sees_the_same(name: &str, packages: &[&str], program: &str) {
    if let Some(reason) = etcd::is_missing() {
        println!("skipped: {reason}");
        return;
    }
    let python = match interpreter(name, packages) {
        Ok(python) => python,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs").join(program);
    same(|server| {
        let mut command = Command::new(&python);
        command.arg(&program).arg(port(server));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd3_of_python_sees_what_it_sees_of_etcd() {
    sees_the_same("python-etcd3-0.12.0", &ETCD3, "python_etcd3.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_of_python_sees_what_it_sees_of_etcd() {
    sees_the_same("python-aetcd-1.0.0", &AETCD, "python_aetcd.py").await;
}
