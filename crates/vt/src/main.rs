//! `vt`: one binary for every role, and the command line that drives it over its API.
//!
//! ```text
//! arguments -> cli (one command, one file) -> config (flag > VT_* > manifest > context > default)
//!                    |                          |
//!                    |                          v
//!                    |                        client --HTTPS, own CA--> the API, and nothing else
//!                    v
//!                  output: data to stdout (table, json, yaml, csv), everything else to stderr
//! vt up    -> cloud: the whole cloud in this process
//! vt store -> engine: the store alone, or any other by its URL
//! vt       -> machine: what this machine is fit for
//! explain  -> what a code means, without a network
//! ```

mod cli;
mod client;
mod cloud;
mod compactor;
mod config;
mod engine;
mod explain;
mod failure;
mod machine;
mod output;

use std::process::ExitCode;

/// Under many small requests at once the system's allocator takes a fifth of the store's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Both TLS libraries of the process take their cryptography from here. A second call would be the only failure.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::complete::answer();
    ExitCode::from(cli::run(std::env::args_os().collect()))
}
