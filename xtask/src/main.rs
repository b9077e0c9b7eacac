//! What a person runs is what CI runs.
//!
//! ```text
//! cargo xtask demo      installs what it needs, starts the cloud in a folder of its own, shows it, leaves it running
//! cargo xtask test      everything that proves it, from a clean clone; ends with plain counts
//! cargo xtask floors    the arrows between crates
//! cargo xtask bench     named figures, side by side with what they are compared with
//! cargo xtask guide     docs/guides/first-app.md, word for word
//! cargo xtask sample    the sample image, for tests
//! cargo xtask openapi   the API's document, into api/
//! cargo xtask codegen   the etcd protocol's code, into crates/etcd/src/proto
//! cargo xtask clients   the tests of the crate etcd-client, at etcd and at vt store serve
//! ```

mod bench;
mod clients;
mod cloud;
mod codegen;
mod demo;
mod docs;
mod floors;
mod guide;
mod http;
mod interrupt;
mod openapi;
mod packages;
mod registry;
mod run;
mod sample;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  demo [--once]                 the cloud with a real image, for you to look around in; --once ends after the walk
  test [--quick]                everything that proves it; --quick leaves out real machines and cargo deny
  floors [--write]              checks the arrows between crates; --write redraws them in ARCHITECTURE.md
  bench path [--json] [--write] figures of the path; --write adds them to docs/benchmarks.md
  bench vm [--json]             figures of machines: clones, sleep, wake, memory
  bench store [--json] [--write] [--quick] [--only NAME] [--etcd PROGRAM] [--vt PROGRAM]
                                the store beside etcd; NAME is a part of a load's name
  docs                          checks that every file the pages name is there
  guide                         follows docs/guides/first-app.md with the vt of `cargo build --workspace`
  sample DIR                    the sample images
  openapi [--write]             checks api/openapi.json; --write replaces it
  codegen [--check|--write]     checks the etcd protocol's generated code; --write replaces it
  clients                       the tests of the crate etcd-client, at etcd and at vt store serve";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let flags = |rest: &[&str], known: &[&str]| rest.iter().all(|flag| known.contains(flag));
    let outcome = match words.as_slice() {
        ["test"] => return test::test(false),
        ["test", "--quick"] => return test::test(true),
        ["demo", rest @ ..] if flags(rest, &["--once"]) => demo::demo(!rest.is_empty()),
        // How the demo calls itself with the rights that it needs.
        ["demo", "--built", rest @ ..] if flags(rest, &["--once"]) => demo::walk(!rest.is_empty()),
        ["floors"] => floors::floors(false),
        ["floors", "--write"] => floors::floors(true),
        ["bench", "path", rest @ ..] if flags(rest, &["--json", "--write"]) => {
            bench::path(rest.contains(&"--json"), rest.contains(&"--write"))
        }
        ["bench", "vm", rest @ ..] if flags(rest, &["--json"]) => bench::vm::vm(rest.contains(&"--json")),
        ["bench", "store", rest @ ..] => match store_options(rest) {
            Some(options) => bench::store::store(&options),
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        },
        ["docs"] => docs::docs(),
        ["guide"] => guide::follow(&run::target().join("debug")),
        ["sample", folder] => sample::ensure(folder.as_ref()),
        ["openapi"] => openapi::openapi(false),
        ["openapi", "--write"] => openapi::openapi(true),
        ["codegen"] | ["codegen", "--check"] => codegen::codegen(false),
        ["codegen", "--write"] => codegen::codegen(true),
        ["clients"] => clients::clients(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn store_options(words: &[&str]) -> Option<bench::store::Options> {
    let mut options = bench::store::Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--json" => options.json = true,
            "--write" => options.write = true,
            "--quick" => options.quick = true,
            "--only" => options.only = Some((*words.next()?).to_owned()),
            "--etcd" => options.etcd = Some(words.next()?.into()),
            "--vt" => options.vt = Some(words.next()?.into()),
            _ => return None,
        }
    }
    Some(options)
}
