//! Secure randomness from the system.

use ring::rand::{SecureRandom, SystemRandom};

/// Fills `buffer` from the system's secure source.
///
/// # Panics
/// When the system has no randomness to give: nothing that depends on it may go on.
pub fn fill(buffer: &mut [u8]) {
    SystemRandom::new().fill(buffer).expect("the system's random source answers");
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

/// A random 64-bit number.
pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

/// `bytes` random bytes in lower-case hexadecimal.
pub fn hex(count: usize) -> String {
    use std::fmt::Write as _;
    let mut raw = vec![0; count];
    fill(&mut raw);
    raw.iter().fold(String::with_capacity(count * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
