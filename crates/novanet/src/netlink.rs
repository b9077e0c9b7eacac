//! The kernel's routing socket: looks at links, addresses, neighbours and routes, and takes the steps of a turn.
//!
//! A socket belongs to the network namespace of the thread that opened it, whoever uses it later.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec};

use crate::address::Mac;
use crate::error::Error;
use crate::observe::{Device, Devices, Kind, PortFlags};
use crate::turn::Step;
use crate::{sysctl, tap};

/// One socket; its connection runs as a task of the current runtime until dropped.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

/// A range that someone uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupied {
    pub net: IpNet,
    pub device: String,
    pub by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A subnet on an interface.
    Link,
    /// A route through a gateway.
    Route,
    /// The machine's resolver, which guests may be told to ask too.
    Nameserver,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn failed(act: &'static str, subject: &str) -> impl FnOnce(rtnetlink::Error) -> Error {
    let subject = subject.to_owned();
    move |source| Error::Netlink { act, subject, source }
}

impl Netlink {
    /// # Errors
    /// [`Error::NetlinkOpen`].
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| Error::NetlinkOpen { source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// All devices that `choose` picks by name.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn devices(&self, choose: impl Fn(&str) -> bool) -> Result<Devices, Error> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list", "links"))?;
        let name_of = |index: u32| links.iter().find(|link| link.header.index == index).and_then(link_name);
        let mut devices: Devices = links
            .iter()
            .filter_map(|link| Some((link_name(link)?, link)))
            .filter(|(name, _)| choose(name))
            .map(|(name, link)| (name.clone(), device(name, link, &name_of)))
            .collect();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = self.handle.neighbours().get();
            request = request.set_address_family(family);
            let found: Vec<_> = request.execute().try_collect().await.map_err(failed("list", "neighbours"))?;
            note_neighbours(&mut devices, &found);
        }
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let found: Vec<_> = request.execute().try_collect().await.map_err(failed("list", "forwarding entries"))?;
        note_forwards(&mut devices, &found);
        let found: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list", "addresses"))?;
        for message in &found {
            let device = devices.values_mut().find(|device| device.index == message.header.index);
            if let (Some(device), Some(address)) = (device, address_of(message)) {
                device.addresses.insert(address);
            }
        }
        Ok(devices)
    }

    /// The main table's routes but default ones, and every interface's subnets.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn occupied(&self) -> Result<Vec<Occupied>, Error> {
        let devices = self.devices(|_| true).await?;
        let name_of = |index: u32| devices.values().find(|device| device.index == index).map(|d| d.name.clone());
        let mut occupied: Vec<Occupied> = Vec::new();
        for device in devices.values() {
            let own = |net: &IpNet| Occupied { net: net.trunc(), device: device.name.clone(), by: By::Link };
            occupied.extend(device.addresses.iter().map(own));
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let routes: Vec<_> =
                self.handle.route().get(message).execute().try_collect().await.map_err(failed("list", "routes"))?;
            occupied.extend(routes.iter().filter_map(|route| route_of(route, &name_of)));
        }
        Ok(occupied)
    }

    async fn index(&self, name: &str) -> Result<u32, Error> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            _ => Err(Error::DeviceGone { name: name.to_owned() }),
        }
    }

    async fn set(
        &self,
        act: &'static str,
        name: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let index = self.index(name).await?;
        let message = change(LinkUnspec::new_with_index(index)).build();
        self.handle.link().set(message).execute().await.map_err(failed(act, name))
    }

    /// # Errors
    /// [`Error::Netlink`], [`Error::DeviceGone`], [`Error::Tap`], [`Error::Sysctl`]. Deleting what is gone is no error.
    pub async fn take(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::DeleteDevice { name } => match self.index(name).await {
                Ok(index) => self.handle.link().del(index).execute().await.map_err(failed("delete", name)),
                Err(_) => Ok(()),
            },
            Step::AddBridge { name } => {
                let bridge = LinkBridge::new(name).down().mcast_snooping(false).build();
                self.handle.link().add(bridge).execute().await.map_err(failed("add", name))
            }
            Step::AddTap { name } => tap::create(name),
            Step::SetMac { name, mac } => self.set("set the MAC of", name, |link| link.address(mac.0.to_vec())).await,
            Step::SetMtu { name, mtu } => self.set("set the mtu of", name, |link| link.mtu(*mtu)).await,
            Step::SetSnooping { name, on } => {
                let change = LinkMessageBuilder::<LinkBridge>::new(name).mcast_snooping(*on).build();
                self.handle.link().set_port(change).execute().await.map_err(failed("set the snooping of", name))
            }
            Step::Setting { path, value } => sysctl::put(path, value),
            Step::AddAddress { name, address } => self.add_address(name, *address).await,
            Step::DeleteAddress { name, address } => {
                let index = self.index(name).await?;
                let mut message = AddressMessage::default();
                message.header.family = family(address.addr());
                message.header.prefix_len = address.prefix_len();
                message.header.index = index;
                message.attributes.push(AddressAttribute::Local(address.addr()));
                let request = self.handle.address().del(message);
                request.execute().await.map_err(failed("delete an address of", name))
            }
            Step::SetBridge { name, bridge } => {
                let controller = self.index(bridge).await?;
                self.set("tie to its bridge", name, |link| link.controller(controller)).await
            }
            Step::SetFlags { name, flags } => {
                let index = self.index(name).await?;
                let change = LinkBridgePort::new(index)
                    .learning(flags.learning)
                    .flood(flags.flood)
                    .isolated(flags.isolated)
                    .build();
                self.handle.link().set_port(change).execute().await.map_err(failed("set the port flags of", name))
            }
            Step::AddForward { name, mac } => {
                let index = self.index(name).await?;
                // NUD_NOARP is what the bridge calls static: it stays, but is no address of the host's own.
                let request = self.handle.neighbours().add_bridge(index, &mac.0).replace();
                let request = request.state(NeighbourState::Noarp).flags(NeighbourFlags::Controller);
                request.execute().await.map_err(failed("add a forwarding entry to", name))
            }
            Step::DeleteForward { name, mac } => {
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Bridge;
                message.header.ifindex = self.index(name).await?;
                message.header.flags = NeighbourFlags::Controller;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
                let request = self.handle.neighbours().del(message);
                request.execute().await.map_err(failed("delete a forwarding entry of", name))
            }
            Step::SetNeighbour { name, address, mac } => {
                let index = self.index(name).await?;
                let request = self.handle.neighbours().add(index, *address).replace();
                let request = request.link_layer_address(&mac.0).state(NeighbourState::Permanent);
                request.execute().await.map_err(failed("add a neighbour to", name))
            }
            Step::DeleteNeighbour { name, address } => {
                let mut message = NeighbourMessage::default();
                message.header.family = family(*address);
                message.header.ifindex = self.index(name).await?;
                message.attributes.push(NeighbourAttribute::Destination(match address {
                    IpAddr::V4(v4) => NeighbourAddress::Inet(*v4),
                    IpAddr::V6(v6) => NeighbourAddress::Inet6(*v6),
                }));
                let request = self.handle.neighbours().del(message);
                request.execute().await.map_err(failed("delete a neighbour of", name))
            }
            Step::SetUp { name } => self.set("bring up", name, LinkMessageBuilder::up).await,
        }
    }

    async fn add_address(&self, name: &str, address: IpNet) -> Result<(), Error> {
        let index = self.index(name).await?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            // Without duplicate detection it is usable at once, with no guest there to answer.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(failed("add an address to", name))
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn link_name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn device(name: String, link: &LinkMessage, name_of: &impl Fn(u32) -> Option<String>) -> Device {
    let flags = link.header.flags;
    let mut device = Device {
        name,
        index: link.header.index,
        kind: Kind::Other,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        mac: None,
        bridge: None,
        snooping: None,
        flags: None,
        addresses: [].into(),
        neighbours: [].into(),
        forwards: [].into(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Address(bytes) => device.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(index) => device.bridge = name_of(*index),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| note_info(&mut device, info)),
            _ => {}
        }
    }
    device
}

fn note_info(device: &mut Device, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(InfoKind::Bridge) => device.kind = Kind::Bridge,
        LinkInfo::Kind(InfoKind::Tun) => device.kind = Kind::Tap,
        LinkInfo::Data(InfoData::Bridge(parts)) => {
            device.snooping = parts.iter().find_map(|part| match part {
                InfoBridge::MulticastSnooping(on) => Some(*on),
                _ => None,
            });
        }
        LinkInfo::PortData(InfoPortData::BridgePort(parts)) => {
            let mut flags = PortFlags { learning: true, flood: true, isolated: false };
            for part in parts {
                match part {
                    InfoBridgePort::Learning(on) => flags.learning = *on,
                    InfoBridgePort::UnicastFlood(on) => flags.flood = *on,
                    InfoBridgePort::Isolated(on) => flags.isolated = *on,
                    _ => {}
                }
            }
            device.flags = Some(flags);
        }
        _ => {}
    }
}

fn neighbour_mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn note_neighbours(devices: &mut Devices, found: &[NeighbourMessage]) {
    for message in found.iter().filter(|message| message.header.state == NeighbourState::Permanent) {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
        let device = devices.values_mut().find(|device| device.index == message.header.ifindex);
        if let (Some(device), Some(address), Some(mac)) = (device, address, neighbour_mac(message)) {
            device.neighbours.insert(address, mac);
        }
    }
}

fn note_forwards(devices: &mut Devices, found: &[NeighbourMessage]) {
    for message in found.iter().filter(|message| message.header.state == NeighbourState::Noarp) {
        let device = devices.values_mut().find(|device| device.index == message.header.ifindex);
        if let (Some(device), Some(mac)) = (device, neighbour_mac(message)) {
            device.forwards.insert(mac);
        }
    }
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let pick = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // IPv4 gives the own address as local; IPv6 gives it as address.
    IpNet::new(pick(true).or_else(|| pick(false))?, message.header.prefix_len).ok()
}

fn route_of(route: &RouteMessage, name_of: &impl Fn(u32) -> Option<String>) -> Option<Occupied> {
    let header = &route.header;
    if header.kind != RouteType::Unicast || header.destination_prefix_length == 0 {
        return None;
    }
    let (mut net, mut device, mut by) = (None, None, By::Link);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => net = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => net = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(index) => device = name_of(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => by = By::Route,
            _ => {}
        }
    }
    let net = IpNet::new(net?, header.destination_prefix_length).ok()?;
    Some(Occupied { net: net.trunc(), device: device.unwrap_or_else(|| "a route".to_owned()), by })
}
