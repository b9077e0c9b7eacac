//! Real machines: Debian's kernel, our PID 1, QEMU in its jail.
//!
//! Each test opens an engine of its own, in a folder of its own, under a tag of its own. What a test needs and the host
//! lacks (root, a program, the package sources) is said as `skipped: REASON`.

mod adopt;
mod jail;
mod life;
mod sleep;
mod support;
mod template;
