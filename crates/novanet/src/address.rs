//! The address plan: numbers in, addresses and device names out. Pure, and the same on every node.
//!
//! ```text
//!               network n (0..=4095)            port o (2..=254) of network n
//! IPv4          the n-th /24 of the prefix      .o            gateway .1
//! IPv6          the n-th /64 of the prefix      ::o           gateway ::1 and fe80::1
//! MAC                                           02:fc:<n high>:<n low>:00:<o>
//! gateway MAC   02:fc:ff:ff:00:01, the same on every bridge of every node: a machine that sleeps on one
//!               and wakes on another keeps a neighbour entry that is still true
//! bridge, tap   vt<tag>n<nnn>                   vt<tag>p<nnn><oo>       hexadecimal; n and p end the tag,
//!               being no hexadecimal digits, so no tag's names are a prefix of another's
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The greatest network number. Twelve bits: a /12 holds that many /24.
pub const NETWORK_NUMBER_MAX: u16 = 4095;
/// The first and the last offset a port may have in its network. `.1` is the gateway, `.255` the broadcast address.
pub const PORT_OFFSET_MIN: u8 = 2;
pub const PORT_OFFSET_MAX: u8 = 254;
/// The prefix length of a network in each family.
pub const V4_NETWORK_LENGTH: u8 = 24;
pub const V6_NETWORK_LENGTH: u8 = 64;
/// The link-local address every bridge answers to.
pub const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Every bridge's MAC. No port has it: network numbers end at `0x0fff`.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0xfc, 0xff, 0xff, 0x00, 0x01]);

/// A MAC address; `02:fc:00:07:00:05` as text and in serde.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The link-local address a guest forms from this MAC (modified EUI-64, RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let byte = self.0;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let [first, second] = [word(byte[0] ^ 2, byte[1]), word(byte[2], 0xff)];
        Ipv6Addr::new(0xfe80, 0, 0, 0, first, second, word(0xfe, byte[3]), word(byte[4], byte[5]))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(out, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::MacMalformed { text: text.chars().take(32).collect() };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The two prefixes that networks are cut from. The control plane and every node hold the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefixes {
    /// At most a /24; a /12 holds all 4096 networks, a longer one the first `2^(24 - length)`.
    pub v4: Ipv4Net,
    /// At most a /52, meant to be a unique local /48 (RFC 4193).
    pub v6: Ipv6Net,
}

/// One network's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddresses {
    pub number: u16,
    /// The /24.
    pub v4: Ipv4Net,
    /// The /64.
    pub v6: Ipv6Net,
    pub gateway_v4: Ipv4Addr,
    pub gateway_v6: Ipv6Addr,
    /// `fe80::1`; what a guest uses as its IPv6 default gateway.
    pub gateway_link_local: Ipv6Addr,
    pub gateway_mac: Mac,
}

/// One port's addresses. They depend on the two numbers and the prefixes alone, so they outlive sleep, restart and move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAddresses {
    pub network: u16,
    pub offset: u8,
    pub mac: Mac,
    /// Inside the network's /24.
    pub v4: Ipv4Addr,
    /// Inside the network's /64.
    pub v6: Ipv6Addr,
    /// What the guest forms from its MAC, and the only link-local address it may use.
    pub link_local: Ipv6Addr,
}

impl Prefixes {
    /// # Errors
    /// [`Error::ConfigPrefix`] when one of them is too long to hold a network.
    pub fn check(&self) -> Result<(), Error> {
        if self.v4.prefix_len() > V4_NETWORK_LENGTH {
            return Err(Error::ConfigPrefix { prefix: self.v4.into(), longest: V4_NETWORK_LENGTH });
        }
        if self.v6.prefix_len() > 52 {
            return Err(Error::ConfigPrefix { prefix: self.v6.into(), longest: 52 });
        }
        Ok(())
    }

    /// How many networks fit: numbers `0..capacity` are usable.
    pub fn capacity(&self) -> u16 {
        let bits = V4_NETWORK_LENGTH.saturating_sub(self.v4.prefix_len()).min(12);
        1 << bits
    }

    /// # Errors
    /// [`Error::NetworkNumber`] when the number does not fit the prefix; [`Error::ConfigPrefix`].
    pub fn network(&self, number: u16) -> Result<NetworkAddresses, Error> {
        self.check()?;
        if number >= self.capacity() {
            return Err(Error::NetworkNumber { number, capacity: self.capacity() });
        }
        let v4 = u32::from(self.v4.network()) | (u32::from(number) << 8);
        let v6 = u128::from(self.v6.network()) | (u128::from(number) << 64);
        let net4 = Ipv4Net::new_assert(v4.into(), V4_NETWORK_LENGTH);
        let net6 = Ipv6Net::new_assert(v6.into(), V6_NETWORK_LENGTH);
        Ok(NetworkAddresses {
            number,
            v4: net4,
            v6: net6,
            gateway_v4: (v4 | 1).into(),
            gateway_v6: (v6 | 1).into(),
            gateway_link_local: GATEWAY_LINK_LOCAL,
            gateway_mac: GATEWAY_MAC,
        })
    }

    /// # Errors
    /// [`Error::PortOffset`] outside `2..=254`; those of [`Prefixes::network`].
    pub fn port(&self, network: u16, offset: u8) -> Result<PortAddresses, Error> {
        if !(PORT_OFFSET_MIN..=PORT_OFFSET_MAX).contains(&offset) {
            return Err(Error::PortOffset { offset });
        }
        let of = self.network(network)?;
        let [high, low] = network.to_be_bytes();
        let mac = Mac([0x02, 0xfc, high, low, 0x00, offset]);
        Ok(PortAddresses {
            network,
            offset,
            mac,
            v4: (u32::from(of.v4.network()) | u32::from(offset)).into(),
            v6: (u128::from(of.v6.network()) | u128::from(offset)).into(),
            link_local: mac.link_local(),
        })
    }
}

/// Names of devices and tables on one node, told apart from another engine's by a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    tag: String,
}

impl Names {
    /// # Errors
    /// [`Error::ConfigTag`] unless the tag is 4 to 6 lower-case hexadecimal digits.
    pub fn new(tag: &str) -> Result<Self, Error> {
        let fits = (4..=6).contains(&tag.len()) && tag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits {
            Ok(Self { tag: tag.to_owned() })
        } else {
            Err(Error::ConfigTag { tag: tag.chars().take(32).collect() })
        }
    }

    /// The bridge of a network, at most 12 bytes.
    pub fn bridge(&self, network: u16) -> String {
        format!("{}{network:03x}", self.bridges())
    }

    /// The tap of a port, at most 14 bytes.
    pub fn tap(&self, network: u16, offset: u8) -> String {
        format!("{}{network:03x}{offset:02x}", self.taps())
    }

    /// What every bridge's name begins with.
    pub fn bridges(&self) -> String {
        format!("vt{}n", self.tag)
    }

    /// What every tap's name begins with.
    pub fn taps(&self) -> String {
        format!("vt{}p", self.tag)
    }

    /// The name of the nftables tables, one in family inet and one in family bridge.
    pub fn table(&self) -> String {
        format!("vt_{}", self.tag)
    }

    /// Whether a device of this name is ours.
    pub fn owns(&self, device: &str) -> bool {
        let hexadecimal =
            |rest: &str, length: usize| rest.len() == length && rest.bytes().all(|b| b.is_ascii_hexdigit());
        device.strip_prefix(&self.bridges()).is_some_and(|rest| hexadecimal(rest, 3))
            || device.strip_prefix(&self.taps()).is_some_and(|rest| hexadecimal(rest, 5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes() -> Prefixes {
        Prefixes { v4: "10.240.0.0/12".parse().unwrap(), v6: "fd12:3456:789a::/48".parse().unwrap() }
    }

    #[test]
    fn numbers_become_addresses() {
        let first = prefixes().network(0).unwrap();
        assert_eq!(first.v4.to_string(), "10.240.0.0/24");
        assert_eq!(first.v6.to_string(), "fd12:3456:789a::/64");
        assert_eq!(first.gateway_v4.to_string(), "10.240.0.1");
        let last = prefixes().network(4095).unwrap();
        assert_eq!(last.v4.to_string(), "10.255.255.0/24");
        assert_eq!(last.v6.to_string(), "fd12:3456:789a:fff::/64");
        assert_eq!(last.gateway_v6.to_string(), "fd12:3456:789a:fff::1");
        let port = prefixes().port(0x123, 5).unwrap();
        assert_eq!(port.v4.to_string(), "10.241.35.5");
        assert_eq!(port.v6.to_string(), "fd12:3456:789a:123::5");
        assert_eq!(port.mac.to_string(), "02:fc:01:23:00:05");
        assert_eq!(port.link_local.to_string(), "fe80::fc:1ff:fe23:5");
    }

    #[test]
    fn no_two_ports_and_no_gateway_share_an_address() {
        let mut seen = std::collections::HashSet::from([GATEWAY_MAC]);
        for network in [0, 1, 255, 256, 4095] {
            for offset in PORT_OFFSET_MIN..=PORT_OFFSET_MAX {
                let port = prefixes().port(network, offset).unwrap();
                assert!(seen.insert(port.mac));
                let of = prefixes().network(network).unwrap();
                assert!(of.v4.contains(&port.v4) && of.v6.contains(&port.v6));
                assert!(port.v4 != of.gateway_v4 && port.v6 != of.gateway_v6);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        assert!(matches!(prefixes().network(4096), Err(Error::NetworkNumber { number: 4096, capacity: 4096 })));
        for offset in [0, 1, 255] {
            assert!(matches!(prefixes().port(1, offset), Err(Error::PortOffset { .. })));
        }
        let small = Prefixes { v4: "192.168.4.0/22".parse().unwrap(), ..prefixes() };
        assert_eq!(small.network(3).unwrap().v4.to_string(), "192.168.7.0/24");
        assert!(small.network(4).is_err());
        let long = Prefixes { v6: "fd00::/64".parse().unwrap(), ..prefixes() };
        assert!(matches!(long.network(0), Err(Error::ConfigPrefix { .. })));
    }

    #[test]
    fn names_fit_the_kernel_and_belong_to_one_tag() {
        for tag in ["abcd", "abcde", "abcdef"] {
            let names = Names::new(tag).unwrap();
            assert!(names.bridge(4095).len() <= 15 && names.tap(4095, 254).len() <= 15);
            assert!(names.owns(&names.bridge(4095)) && names.owns(&names.tap(0, 2)));
            for other in ["abcd", "abcde", "abcdef"].iter().filter(|other| **other != tag) {
                assert!(!Names::new(other).unwrap().owns(&names.bridge(1)));
            }
        }
        let names = Names::new("abcd").unwrap();
        for foreign in ["eth0", "vtabcdn", "vtabcdn00", "vtabcdnxyz", "vtabcdp001022", "br0"] {
            assert!(!names.owns(foreign), "{foreign}");
        }
        for bad in ["", "abc", "abcdefa", "ABCD", "ab-d", "ab\"d"] {
            assert!(matches!(Names::new(bad), Err(Error::ConfigTag { .. })), "{bad}");
        }
    }

    #[test]
    fn a_mac_survives_its_text() {
        let mac = prefixes().port(7, 9).unwrap().mac;
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        assert_eq!(serde_json::from_str::<Mac>(&serde_json::to_string(&mac).unwrap()).unwrap(), mac);
        for bad in ["", "02:fc:00:07:00", "02:fc:00:07:00:05:06", "2:fc:00:07:00:055", "zz:fc:00:07:00:05"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
