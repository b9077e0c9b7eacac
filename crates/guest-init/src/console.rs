//! What init says goes to the kernel's log, and from there to the serial console when it matters.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

static KMSG: OnceLock<File> = OnceLock::new();

/// The kernel cuts a record near 1 KiB; a longer text would be refused as a whole.
const LINE_MAX: usize = 900;

/// After `/dev` is mounted. The descriptor outlives the switch to the image's root.
pub fn open() {
    if let Ok(file) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = KMSG.set(file);
    }
}

fn say(level: u8, text: &str) {
    let end = (0..=text.len().min(LINE_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let line = format!("<{level}>init: {}\n", text[..end].replace('\n', " | "));
    match KMSG.get() {
        Some(mut file) => drop(file.write_all(line.as_bytes())),
        None => eprint!("{line}"),
    }
}

pub fn info(text: &str) {
    say(6, text);
}

/// Shown on the console even of a quiet kernel.
pub fn error(text: &str) {
    say(3, text);
}

/// A panic must not end PID 1, for that panics the kernel and takes the workload along. There is no unwinding in this
/// binary, so the thread that panicked stays where it is: a probe's thread parks, the main thread goes on reaping. The
/// host notices the silence on the channel and decides.
pub fn survive_panics() {
    let main = std::thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        error(&format!("panic: {panic}"));
        loop {
            let reaped = std::thread::current().id() == main
                && rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok();
            if !reaped {
                crate::clock::nap(1000);
            }
        }
    }));
}
