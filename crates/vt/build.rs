//! Builds PID 1 of the guests as a static program and hands it to the binary, which carries it.
//!
//! A build of its own, because its flags (static, small) and its features (wire types alone) differ from the rest.

use std::path::{Path, PathBuf};
use std::process::Command;

/// From `<target>/<profile>/build/<package>/out` up to `<target>`.
const OUT_DEPTH: usize = 4;

fn main() {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where")).join("../..");
    for input in [
        "crates/guest-init",
        "crates/model/Cargo.toml",
        "crates/model/src/guest",
        "crates/model/src/guest.rs",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo names the architecture");
    let triple = format!("{architecture}-unknown-linux-gnu");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names the output folder"));
    let target = out.ancestors().nth(OUT_DEPTH).expect("the output folder lies in the target folder").join("guest");
    let cargo = std::env::var_os("CARGO").expect("cargo names itself");
    let status = Command::new(cargo)
        .current_dir(&root)
        .args(["build", "--quiet", "--locked", "--package", "guest-init", "--profile", "guest", "--target", &triple])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the guest's PID 1 could not be built");
    let built = target.join(&triple).join("guest/guest-init");
    std::fs::copy(&built, out.join("guest-init")).expect("the guest's PID 1 can be copied");
}
