//! Loopback and the one interface: MAC, MTU, addresses, default routes. No DHCP, no router advertisements.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use model::guest::{FailureCode, Network};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::failure::{Context, Failure};
use crate::netlink::{Routes, is_gateway};
use crate::{clock, console};

const CODE: FailureCode = FailureCode::NetConfigFailed;
const INTERFACE: &str = "eth0";
const INTERFACE_WAIT_MS: u64 = 3_000;
const INTERFACE_POLL_MS: u64 = 5;
const ARPHRD_ETHER: u16 = 1;

/// Brings up loopback always, and `eth0` when there is a network.
pub fn configure(network: Option<&Network>) -> Result<(), Failure> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context(CODE, "open a control socket")?;
    up(&socket, "lo")?;
    sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    sysctl("net/ipv4/ping_group_range", "0 2147483647");
    let Some(network) = network else {
        return Ok(());
    };
    wait_for_interface()?;
    for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0")] {
        sysctl(&format!("net/ipv6/conf/{INTERFACE}/{key}"), value);
    }
    set_mac(&socket, &network.mac)?;
    set_mtu(&socket, network.mtu)?;
    up(&socket, INTERFACE)?;

    let index = rustix::net::netdevice::name_to_index(&socket, INTERFACE).context(CODE, "find eth0")?;
    let routes = Routes::open().context(CODE, "open netlink")?;
    let v4 = network.v4.as_ref().map(|v4| (IpAddr::V4(v4.address), v4.prefix, v4.gateway.map(IpAddr::V4)));
    let v6 = network.v6.as_ref().map(|v6| (IpAddr::V6(v6.address), v6.prefix, v6.gateway.map(IpAddr::V6)));
    for (address, prefix, gateway) in [v4, v6].into_iter().flatten() {
        routes.add_address(index, address, prefix).context(CODE, format_args!("add address {address}/{prefix}"))?;
        if let Some(gateway) = gateway.filter(|gateway| is_gateway(*gateway)) {
            routes.add_default_route(index, gateway).context(CODE, format_args!("add default route by {gateway}"))?;
        }
    }
    Ok(())
}

fn wait_for_interface() -> Result<(), Failure> {
    let path = format!("/sys/class/net/{INTERFACE}");
    let deadline = clock::monotonic_ms() + INTERFACE_WAIT_MS;
    while fs::metadata(&path).is_err() {
        if clock::monotonic_ms() >= deadline {
            return Err(Failure::new(CODE, "the machine has no eth0"));
        }
        clock::nap(INTERFACE_POLL_MS);
    }
    Ok(())
}

/// A kernel without the key behaves as wished already, or cannot.
fn sysctl(key: &str, value: &str) {
    if let Err(error) = fs::write(format!("/proc/sys/{key}"), value) {
        console::info(&format!("{key} = {value}: {error}"));
    }
}

/// Six hex pairs with colons.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *target = byte as libc::c_char;
    }
    request
}

fn ioctl(socket: &OwnedFd, code: libc::Ioctl, request: &mut libc::ifreq) -> std::io::Result<()> {
    // SAFETY: every code used here takes an ifreq, and the reference outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn set_mac(socket: &OwnedFd, mac: &str) -> Result<(), Failure> {
    let mac = parse_mac(mac).ok_or_else(|| Failure::new(CODE, format!("{mac:?} is no MAC address")))?;
    let mut request = request(INTERFACE);
    let mut data: [libc::c_char; 14] = [0; 14];
    for (target, byte) in data.iter_mut().zip(mac) {
        *target = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: ARPHRD_ETHER, sa_data: data };
    ioctl(socket, libc::SIOCSIFHWADDR as libc::Ioctl, &mut request).context(CODE, "set the MAC address")
}

fn set_mtu(socket: &OwnedFd, mtu: u16) -> Result<(), Failure> {
    let mut request = request(INTERFACE);
    request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
    ioctl(socket, libc::SIOCSIFMTU as libc::Ioctl, &mut request).context(CODE, format_args!("set the MTU to {mtu}"))
}

fn up(socket: &OwnedFd, name: &str) -> Result<(), Failure> {
    let mut request = request(name);
    ioctl(socket, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)
        .context(CODE, format_args!("read the flags of {name}"))?;
    // SAFETY: the kernel filled this member of the union just now.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    ioctl(socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request).context(CODE, format_args!("bring up {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_strictly() {
        assert_eq!(parse_mac("02:00:0a:FF:01:9c"), Some([2, 0, 10, 255, 1, 0x9c]));
        for bad in ["", "02:00:0a:ff:01", "02:00:0a:ff:01:9c:00", "2:0:a:f:1:9", "02:00:0a:ff:01:zz"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
