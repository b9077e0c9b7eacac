//! Taps through /dev/net/tun: made persistent once, then opened by whoever moves their frames.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::Error;

pub const TUN_DEVICE: &str = "/dev/net/tun";

/// `_IOW('T', 202, int)` and `_IOW('T', 203, int)` of linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;

/// The head of `struct ifreq`, padded to the size the kernel copies.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Opens the clone device, as the calling thread's network namespace.
pub fn device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(TUN_DEVICE)
}

/// A descriptor for the tap `name` in the calling thread's network namespace, made when there is none: whole frames,
/// each with a `virtio_net_hdr` of 10 bytes before it (`IFF_NO_PI`, `IFF_VNET_HDR`), non-blocking. The tap has its
/// carrier as long as one is open, and takes one at a time.
///
/// # Errors
/// [`Error::Tap`]; `EBUSY` inside when another descriptor is attached.
pub fn attach(name: &str) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Tap { act: "attached", name: name.to_owned(), source };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let file = device().map_err(|source| Error::TunMissing { source })?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: flags as libc::c_short, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the descriptor is open, and the request is as large as the `struct ifreq` the kernel reads and writes.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if answer < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(file.into())
}

/// Makes the tap `name` and leaves it standing without a descriptor.
///
/// # Errors
/// [`Error::Tap`], [`Error::TunMissing`].
pub fn create(name: &str) -> Result<(), Error> {
    let tap = attach(name)?;
    let on: libc::c_ulong = 1;
    // SAFETY: the descriptor is an attached tap; the argument is a plain number.
    let answer = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETPERSIST, on) };
    if answer < 0 {
        return Err(Error::Tap { act: "kept", name: name.to_owned(), source: io::Error::last_os_error() });
    }
    Ok(())
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
