//! A tap device that another engine made, opened by its name for one machine.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// struct ifreq: the name, then a union of 24 bytes that begins with the flags.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

/// Opens the device's one queue. The descriptor works in any network namespace and needs no privilege to use.
///
/// # Errors
/// `NotFound` when there is no such device: asking for it would make one, so its absence is looked at first.
/// `ResourceBusy` when another process holds it.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !exists(name) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such network device"));
    }
    attach(name)
}

/// A device of its own that is down and leads nowhere, and is gone with its descriptor.
pub fn placeholder() -> io::Result<OwnedFd> {
    attach("vtt%d")
}

fn attach(name: &str) -> io::Result<OwnedFd> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let device: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: the descriptor is open for the length of the call, and the kernel reads and writes one `struct ifreq`,
    // which `request` is in size and layout.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(device.into()) }
}

fn exists(name: &str) -> bool {
    let Ok(name) = std::ffi::CString::new(name) else { return false };
    // SAFETY: `name` is a string with its terminator that lives through the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_not_made() {
        assert_eq!(open("vt-no-such-tap").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(open("a-name-that-is-too-long").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
