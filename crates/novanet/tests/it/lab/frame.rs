//! Frames written by hand.

use std::net::{Ipv4Addr, Ipv6Addr};

use novanet::Mac;

pub const ETH_IP: u16 = 0x0800;
pub const ETH_ARP: u16 = 0x0806;
pub const ETH_IP6: u16 = 0x86dd;

pub fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat()
}

/// The same frame inside an 802.1Q tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &vlan.to_be_bytes(), &frame[12..]].concat()
}

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// UDP over IPv4, without a UDP checksum.
pub fn udp4(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = 28 + payload.len() as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let check = sum(&[&header]);
    header[10..12].copy_from_slice(&check.to_be_bytes());
    let mut udp = 40_000_u16.to_be_bytes().to_vec();
    udp.extend(port.to_be_bytes());
    udp.extend((length - 20).to_be_bytes());
    udp.extend([0, 0]);
    [&header[..], &udp, payload].concat()
}

/// Any upper layer over IPv6; the checksum goes to `check_at` in it.
pub fn ip6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, mut upper: Vec<u8>, check_at: usize) -> Vec<u8> {
    let length = upper.len() as u16;
    let pseudo = [&from.octets()[..], &to.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, protocol]].concat();
    let check = sum(&[&pseudo, &upper]);
    upper[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([protocol, 255]);
    header.extend(from.octets());
    header.extend(to.octets());
    [header, upper].concat()
}

pub fn udp6(from: Ipv6Addr, to: Ipv6Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = 40_000_u16.to_be_bytes().to_vec();
    udp.extend(port.to_be_bytes());
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    ip6(from, to, 17, udp, 6)
}

/// A neighbour advertisement: `target` is at `mac`, override set (RFC 4861, 4.4), with `mark` in an unknown option.
pub fn advertisement(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, mac: Mac, mark: [u8; 6]) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac.0);
    icmp.extend([200, 1]);
    icmp.extend(mark);
    ip6(from, to, 58, icmp, 2)
}

/// A router advertisement with a default route of 1800 s (RFC 4861, 4.2).
pub fn router_advertisement(from: Ipv6Addr, mark: [u8; 6]) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend([200, 1]);
    icmp.extend(mark);
    ip6(from, "ff02::1".parse().unwrap(), 58, icmp, 2)
}

/// ARP over Ethernet (RFC 826): 1 asks, 2 answers. `mark` is trailing padding.
pub fn arp(operation: u16, from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), mark: &[u8]) -> Vec<u8> {
    let mut packet = vec![0, 1, 0x08, 0x00, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(from.0.0);
    packet.extend(from.1.octets());
    packet.extend(to.0.0);
    packet.extend(to.1.octets());
    packet.extend(mark);
    packet
}
