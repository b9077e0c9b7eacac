//! Just enough rtnetlink to add an address and a route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// Request, acknowledge, create, replace.
const FLAGS: u16 = 0x1 | 0x4 | 0x400 | 0x100;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
/// The gateway is on the link, whatever the prefix says.
const RTNH_F_ONLINK: u32 = 4;
const HEADER: usize = 16;

/// One request: header, fixed part, attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        self.0.extend_from_slice(&(data.len() as u16 + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

/// No duplicate address detection: the address was assigned by the one who hands them all out.
fn address_request(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = octets(address);
    let mut fixed = vec![family, prefix, IFA_F_NODAD, 0];
    fixed.extend_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(RTM_NEWADDR, &fixed).attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes);
    if let (IpAddr::V4(v4), 0..=30) = (address, prefix) {
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        request = request.attribute(IFA_BROADCAST, &Ipv4Addr::from_bits(v4.to_bits() | host_bits).octets());
    }
    request.finish()
}

fn default_route_request(index: u32, gateway: IpAddr) -> Vec<u8> {
    let (family, bytes) = octets(gateway);
    let mut fixed = vec![family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST];
    fixed.extend_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    Request::new(RTM_NEWROUTE, &fixed).attribute(RTA_GATEWAY, &bytes).attribute(RTA_OIF, &index.to_ne_bytes()).finish()
}

/// The kernel's answer to one request.
fn parse_answer(bytes: &[u8]) -> std::io::Result<()> {
    let short = || std::io::Error::other("a short netlink answer");
    let kind = u16::from_ne_bytes(bytes.get(4..6).and_then(|b| b.try_into().ok()).ok_or_else(short)?);
    if kind != NLMSG_ERROR {
        return Err(std::io::Error::other(format!("netlink answered with type {kind}")));
    }
    let code = i32::from_ne_bytes(bytes.get(HEADER..HEADER + 4).and_then(|b| b.try_into().ok()).ok_or_else(short)?);
    if code == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(code.saturating_neg())) }
}

pub struct Routes(OwnedFd);

impl Routes {
    pub fn open() -> std::io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    fn ask(&self, request: &[u8]) -> std::io::Result<()> {
        send(&self.0, request, SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        parse_answer(&answer[..length])
    }

    /// Adding an address that is there already is no error.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> std::io::Result<()> {
        self.ask(&address_request(index, address, prefix))
    }

    pub fn add_default_route(&self, index: u32, gateway: IpAddr) -> std::io::Result<()> {
        self.ask(&default_route_request(index, gateway))
    }
}

/// The all-zero address of the gateway's family is no gateway.
pub fn is_gateway(gateway: IpAddr) -> bool {
    gateway != IpAddr::V4(Ipv4Addr::UNSPECIFIED) && gateway != IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_layout() {
        let request = address_request(2, "10.1.2.3".parse().unwrap(), 24);
        assert_eq!(request.len(), 16 + 8 + 3 * 8);
        assert_eq!(u32::from_ne_bytes(request[..4].try_into().unwrap()) as usize, request.len());
        assert_eq!(request[16..20], [2, 24, IFA_F_NODAD, 0]);
        assert_eq!(request[request.len() - 4..], [10, 1, 2, 255]);

        let request = address_request(2, "fd00::7".parse().unwrap(), 64);
        assert_eq!(request.len(), 16 + 8 + 2 * 20);
        let route = default_route_request(2, "fe80::1".parse().unwrap());
        assert_eq!(route.len(), 16 + 12 + 20 + 8);
    }

    #[test]
    fn answers_are_read_without_trust() {
        assert!(parse_answer(&[]).is_err());
        let mut answer = vec![0u8; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(parse_answer(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(parse_answer(&answer).unwrap_err().raw_os_error(), Some(17));
        answer[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(parse_answer(&answer).is_err());
    }
}
