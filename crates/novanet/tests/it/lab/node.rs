//! A node: a namespace with an engine in it, and if asked a way out.

use std::path::Path;

use novanet::{Config, Desired, Error, Handle, Network, Port, Service};

use super::Space;

pub const TAG: &str = "0a1b";

pub struct Node {
    pub handle: Handle,
    pub space: Space,
    pub folder: tempfile::TempDir,
    generation: u64,
}

/// A network with ports at these offsets.
pub fn network(number: u16, offsets: &[u8]) -> Network {
    let port = |offset: &u8| Port::new(format!("port-{number}-{offset}"), *offset);
    Network { number, ports: offsets.iter().map(port).collect() }
}

pub fn config(folder: &Path) -> Config {
    Config::new(TAG, folder, "fd12:3456:789a::/48".parse().unwrap())
}

/// Opens an engine in a space.
pub fn open(space: &Space, config: Config) -> Result<Handle, Error> {
    space.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Service::open(config))
    })
}

impl Node {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (space, folder) = (Space::new(), tempfile::tempdir().unwrap());
        let mut config = config(folder.path());
        change(&mut config);
        let handle = open(&space, config).expect("the engine opens");
        Self { handle, space, folder, generation: 0 }
    }

    pub fn config(&self) -> Config {
        config(self.folder.path())
    }

    /// Closes the engine as a crash would: nothing is cleared. Then opens it again.
    pub async fn reopen(&mut self) {
        self.handle.clone().close().await;
        self.handle = open(&self.space, self.config()).expect("the engine opens again");
    }

    pub async fn apply(&mut self, networks: Vec<Network>) -> novanet::Applied {
        self.generation += 1;
        let desired = Desired { generation: self.generation, networks };
        self.handle.apply(desired).await.expect("it applies")
    }

    /// A space behind a cable: the node is 192.0.2.1 and 2001:db8:ff::1, the outside .2 and ::2.
    pub fn outside(&self) -> Space {
        let outside = Space::new();
        self.space.ip("link add up0 type veth peer name up1");
        self.space.ip(&format!("link set up1 netns {}", outside.path));
        for (space, device, end) in [(&self.space, "up0", 1), (&outside, "up1", 2)] {
            space.ip(&format!("addr add 192.0.2.{end}/24 dev {device}"));
            space.ip(&format!("-6 addr add 2001:db8:ff::{end}/64 dev {device} nodad"));
            space.ip(&format!("link set {device} up"));
        }
        self.space.ip("route add default via 192.0.2.2");
        self.space.ip("-6 route add default via 2001:db8:ff::2");
        outside
    }

    /// What the rules with this reason have dropped, all ports together.
    pub async fn dropped(&self, reason: &str) -> u64 {
        let seen = self.handle.observe().await.unwrap();
        seen.tables
            .iter()
            .flat_map(|table| &table.drops)
            .filter(|drops| drops.reason == reason)
            .map(|d| d.packets)
            .sum()
    }
}
