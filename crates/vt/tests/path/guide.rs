//! The guide for a first app, followed word for word.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Scenario;
use crate::cloud::{Cloud, Ran, VT};

pub const ALL: &[Scenario] = &[("guide::first_app", first_app)];

/// Runs every `sh` block of the guide in order, in one shell each, in one folder, with `vt` on the PATH.
fn first_app(cloud: &Cloud) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/first-app.md");
    let text = fs::read_to_string(page).unwrap();
    let folder = cloud.folder.join("guide");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(&cloud.layout, folder.join("sample")).ok();
    let path = format!("{}:{}", Path::new(VT).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut blocks = 0;
    let mut here = folder.clone();
    for block in text.split("```sh\n").skip(1) {
        let script = block.split("```").next().unwrap();
        println!("    {}", script.trim().replace('\n', "\n    "));
        let environment = cloud.command(&here, &[]);
        let mut shell = Command::new("sh");
        // The folder that one block leaves is where the next one begins.
        let whole = format!("set -e\n{script}\npwd > '{}'", folder.join(".here").display());
        shell.current_dir(&here).args(["-c", &whole]);
        for (key, value) in environment.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        Ran::of(shell.env("PATH", &path).output().unwrap()).ok();
        here = fs::read_to_string(folder.join(".here")).unwrap().trim().into();
        blocks += 1;
    }
    assert!(blocks >= 5, "the guide has {blocks} blocks");
}
