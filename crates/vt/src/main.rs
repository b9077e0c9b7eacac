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

use std::ffi::c_long;
use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Under many small requests at once the system's allocator takes a fifth of the store's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`: the bindings have no name for it.
const PURGE_DELAY: mi_option_t = 15;

/// How long freed memory is kept before the system gets it back. By itself the allocator takes a second.
const KEPT_MS: c_long = 100;

fn main() -> ExitCode {
    // SAFETY: a number is stored; the allocator reads it when it next frees pages.
    unsafe { mi_option_set(PURGE_DELAY, KEPT_MS) };
    // Both TLS libraries of the process take their cryptography from here. A second call would be the only failure.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::complete::answer();
    ExitCode::from(cli::run(std::env::args_os().collect()))
}
