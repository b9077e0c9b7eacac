//! What a member is told when it is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::OpenError;
use super::peer::address::Address;
use super::peer::network::{Network, Tcp};
use super::peer::tls::Tls;
use super::place::Place;

/// Where etcd has the same setting, the default is etcd's.
#[derive(Clone)]
pub struct Options {
    /// For people, and to find the member's own line in `initial_cluster`.
    pub name: String,
    /// For identity, log and state.
    pub place: Place,
    /// Where other members reach this one, for binding. Empty: nowhere, for a store of one member for good.
    pub listen_peer_urls: Vec<String>,
    /// Where other members reach this one, as they know it. Not empty.
    pub advertise_peer_urls: Vec<String>,
    pub advertise_client_urls: Vec<String>,
    /// Names and peer addresses of those who begin together; a name with several addresses stands there several times.
    /// Empty: this one alone. Read when the folder is empty, and of no meaning later.
    pub initial_cluster: Vec<(String, String)>,
    pub initial_cluster_state: InitialState,
    /// Stores with the same addresses and different tokens are different clusters.
    pub initial_cluster_token: String,
    /// For peer addresses that are `https`.
    pub tls: Option<Tls>,
    pub heartbeat: Duration,
    /// A follower that has not heard of a leader for once to twice this time asks for votes. At least five heartbeats.
    pub election: Duration,
    /// Puts are refused when the state occupies more on disk.
    pub quota_bytes: u64,
    /// Entries of the log between two snapshots; a snapshot is what the log before it can be forgotten for.
    pub snapshot_entries: u64,
    /// After so long a request is answered with [`store::Error::TimedOut`].
    pub request_limit: Duration,
    pub network: Arc<dyn Network>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InitialState {
    /// All of `initial_cluster` begin a new cluster.
    #[default]
    New,
    /// The cluster exists and has this member in its list already.
    Existing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            place: Place::Folder(PathBuf::from("default.chainfire")),
            listen_peer_urls: Vec::new(),
            advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            initial_cluster: Vec::new(),
            initial_cluster_state: InitialState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            tls: None,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
            quota_bytes: 2 * 1024 * 1024 * 1024,
            snapshot_entries: 10_000,
            request_limit: Duration::from_secs(7),
            network: Tcp::network(),
        }
    }
}

/// `name=url,name=url`, as on etcd's command line.
pub fn parse_initial_cluster(text: &str) -> Result<Vec<(String, String)>, OpenError> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| match pair.split_once('=') {
        Some((name, url)) if !name.is_empty() && !url.is_empty() => Ok((name.to_owned(), url.to_owned())),
        _ => Err(OpenError::Settings(format!("{pair:?} in the initial cluster is not name=url"))),
    });
    pairs.collect()
}

/// Options that make sense together.
pub struct Settled {
    pub options: Options,
    pub listen: Vec<Address>,
    /// By name, its peer addresses ascending.
    pub initial: BTreeMap<String, Vec<String>>,
}

/// As etcd has it: fewer heartbeats than this within one election, and a single lost one would start it.
const HEARTBEATS_MIN: u32 = 5;

/// Longest election, as etcd has it.
const ELECTION_MAX: Duration = Duration::from_secs(50);

impl Options {
    pub fn settle(self) -> Result<Settled, OpenError> {
        let fault = |said: String| Err(OpenError::Settings(said));
        let address = |url: &String| url.parse().map_err(|error| OpenError::Settings(format!("{error}")));
        if self.name.is_empty() {
            return fault("a member needs a name".to_owned());
        }
        if self.advertise_peer_urls.is_empty() {
            return fault("a member needs an address for its peers".to_owned());
        }
        if self.election < self.heartbeat * HEARTBEATS_MIN || self.heartbeat.is_zero() {
            let Self { election, heartbeat, .. } = self;
            return fault(format!("an election of {election:?} has to last at least five heartbeats of {heartbeat:?}"));
        }
        if self.election > ELECTION_MAX {
            return fault(format!("an election may last at most {ELECTION_MAX:?}"));
        }
        let listen = self.listen_peer_urls.iter().map(address).collect::<Result<Vec<Address>, _>>()?;
        let advertised = self.advertise_peer_urls.iter().map(address).collect::<Result<Vec<Address>, _>>()?;
        let mut initial: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, url) in &self.initial_cluster {
            address(url)?;
            let urls = initial.entry(name.clone()).or_default();
            if urls.contains(url) {
                return fault(format!("{name}={url} stands twice in the initial cluster"));
            }
            urls.push(url.clone());
        }
        if initial.is_empty() {
            initial.insert(self.name.clone(), self.advertise_peer_urls.clone());
        }
        for urls in initial.values_mut() {
            urls.sort();
        }
        let mut own = self.advertise_peer_urls.clone();
        own.sort();
        match initial.get(&self.name) {
            None => return fault(format!("{} is not in the initial cluster", self.name)),
            Some(urls) if *urls != own => {
                let (urls, own) = (urls.join(","), own.join(","));
                return fault(format!("{} has {urls} in the initial cluster, and advertises {own}", self.name));
            }
            Some(_) => {}
        }
        let mut all: Vec<&String> = initial.values().flatten().collect();
        all.sort();
        if let Some([twice, _]) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return fault(format!("two members have the address {twice}"));
        }
        if listen.is_empty() && (initial.len() > 1 || self.initial_cluster_state == InitialState::Existing) {
            return fault("a member of several has to listen for the others".to_owned());
        }
        if self.tls.is_none() && listen.iter().chain(&advertised).any(|address| address.tls) {
            return fault("an address for peers is https, and there is no certificate".to_owned());
        }
        if listen.iter().any(|address| address.tls != listen[0].tls) {
            return fault("the addresses for peers are partly http and partly https".to_owned());
        }
        Ok(Settled { listen, initial, options: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options {
            listen_peer_urls: vec!["http://127.0.0.1:1".to_owned()],
            advertise_peer_urls: vec!["http://a:1".to_owned()],
            initial_cluster: parse_initial_cluster("default=http://a:1,b=http://b:1").unwrap(),
            ..Options::default()
        };
        change(&mut options);
        match options.settle() {
            Ok(_) => panic!("these options were accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_store_of_one_needs_no_settings() {
        let settled = Options::default().settle().unwrap();
        assert_eq!(settled.initial["default"], ["http://localhost:2380"]);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (said, change) in [
            ("needs a name", Box::new(|o: &mut Options| o.name.clear()) as Box<dyn FnOnce(&mut Options)>),
            ("not in the initial cluster", Box::new(|o| o.name = "c".to_owned())),
            ("and advertises", Box::new(|o| o.advertise_peer_urls = vec!["http://c:1".to_owned()])),
            ("five heartbeats", Box::new(|o| o.heartbeat = o.election)),
            ("has to listen", Box::new(|o| o.listen_peer_urls.clear())),
            ("no certificate", Box::new(|o| o.listen_peer_urls = vec!["https://a:1".to_owned()])),
            ("two members", Box::new(|o| o.initial_cluster.push(("d".to_owned(), "http://b:1".to_owned())))),
            ("stands twice", Box::new(|o| o.initial_cluster.push(("b".to_owned(), "http://b:1".to_owned())))),
            ("no address of a member", Box::new(|o| o.initial_cluster.push(("d".to_owned(), "b:1".to_owned())))),
        ] {
            let error = refused(change);
            assert!(error.contains(said), "{error}");
        }
        assert!(parse_initial_cluster("a=http://a:1,b").is_err());
    }
}
