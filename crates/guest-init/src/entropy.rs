//! Fresh randomness from the host, credited and mixed in at once: a clone of a saved machine must not draw what its
//! siblings draw.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

/// `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)` of `linux/random.h`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
/// Bytes taken from the host at most.
const SEED_MAX: usize = 512;

#[repr(C)]
struct PoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; SEED_MAX],
}

/// `None` when a digit is missing or is none.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

pub fn add(seed: &[u8]) -> std::io::Result<()> {
    let pool = OpenOptions::new().write(true).open("/dev/urandom")?;
    let length = seed.len().min(SEED_MAX);
    let mut info =
        PoolInfo { entropy_count: (length * 8) as libc::c_int, buf_size: length as libc::c_int, buf: [0; SEED_MAX] };
    info.buf[..length].copy_from_slice(&seed[..length]);
    // SAFETY: the struct has the kernel's layout, and `buf_size` stays within `buf`.
    let added = unsafe { libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    if added < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: this request takes no argument.
    let reseeded = unsafe { libc::ioctl(pool.as_raw_fd(), RNDRESEEDCRNG) };
    if reseeded < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// A fresh id of 32 hex digits; never waits for the pool.
pub fn id() -> String {
    use std::fmt::Write;
    let mut bytes = [0u8; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::INSECURE);
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_strictly() {
        assert_eq!(parse_hex("00ffA5"), Some(vec![0, 255, 0xa5]));
        assert_eq!(parse_hex(""), Some(vec![]));
        assert_eq!(parse_hex("0"), None);
        assert_eq!(parse_hex("0g"), None);
    }

    #[test]
    fn ids_differ() {
        assert_ne!(id(), id());
        assert_eq!(id().len(), 32);
    }
}
