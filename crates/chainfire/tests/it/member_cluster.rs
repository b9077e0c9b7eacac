//! Several members in one process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chainfire::door::Host;
use chainfire::door::host::MemberFact;
use chainfire::member::types::MemberId;
use chainfire::member::{InitialState, Member, OpenError, Options, Place, Simulated};
use store::{Error, Op, Range, Revision, Store, Txn};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::member_net::Hub;

/// Only a test that fails waits for so long.
pub const WAIT_MAX: Duration = Duration::from_mins(2);

/// Two members of one machine have different hosts.
pub fn url(name: &str) -> String {
    format!("http://{name}:2380")
}

pub struct Cluster {
    pub hub: Hub,
    pub nodes: Vec<Node>,
    snapshot_entries: u64,
}

pub struct Node {
    pub name: String,
    place: Ground,
    existing: bool,
    member: Option<Arc<Member>>,
}

enum Ground {
    Folder(TempDir),
    Memory(Simulated),
}

impl Ground {
    fn place(&self) -> Place {
        match self {
            Self::Folder(dir) => Place::Folder(dir.path().join("data")),
            Self::Memory(simulated) => Place::Simulated(simulated.clone()),
        }
    }
}

fn folder() -> Ground {
    Ground::Folder(tempfile::tempdir().expect("a folder"))
}

impl Cluster {
    /// Members that lie on disk, running.
    pub async fn on_disk(members: usize) -> Self {
        Self::begin(members, 10_000, folder).await
    }

    /// Members that lie in memory, running.
    pub async fn in_memory(members: usize) -> Self {
        Self::begin(members, 10_000, || Ground::Memory(Simulated::default())).await
    }

    /// Members on disk that make a snapshot after so many entries of the log.
    pub async fn with_snapshots(members: usize, snapshot_entries: u64) -> Self {
        Self::begin(members, snapshot_entries, folder).await
    }

    async fn begin(members: usize, snapshot_entries: u64, place: impl Fn() -> Ground) -> Self {
        let node = |n| Node { name: format!("m{n}"), place: place(), existing: false, member: None };
        let mut cluster = Self { hub: Hub::default(), nodes: (1..=members).map(node).collect(), snapshot_entries };
        for n in 0..members {
            cluster.start(n).await;
        }
        cluster.leader().await;
        for n in 0..members {
            let member = cluster.member(n).clone();
            until("each votes", async || (!Host::status(&*member).await.ok()?.learner).then_some(())).await;
        }
        cluster
    }

    /// One that is to join; not running.
    pub fn prepare(&mut self, name: &str) -> usize {
        self.nodes.push(Node { name: name.to_owned(), place: folder(), existing: true, member: None });
        self.nodes.len() - 1
    }

    pub fn options(&self, n: usize) -> Options {
        let node = &self.nodes[n];
        Options {
            name: node.name.clone(),
            place: node.place.place(),
            listen_peer_urls: vec![url(&node.name)],
            advertise_peer_urls: vec![url(&node.name)],
            advertise_client_urls: vec![format!("http://{}:2379", node.name)],
            initial_cluster: self.nodes.iter().map(|node| (node.name.clone(), url(&node.name))).collect(),
            initial_cluster_state: if node.existing { InitialState::Existing } else { InitialState::New },
            snapshot_entries: self.snapshot_entries,
            network: self.hub.network(&node.name),
            ..Options::default()
        }
    }

    pub async fn try_start(&mut self, n: usize) -> Result<(), OpenError> {
        self.nodes[n].member = Some(Arc::new(Member::open(self.options(n)).await?));
        Ok(())
    }

    pub async fn start(&mut self, n: usize) {
        self.try_start(n).await.expect("the member opens");
    }

    /// Ends it well.
    pub async fn stop(&mut self, n: usize) {
        let member = self.nodes[n].member.take().expect("it runs");
        member.close().await.expect("the member closes");
    }

    /// Ends it as a crash does, as far as one process can.
    pub fn kill(&mut self, n: usize) {
        let member = self.nodes[n].member.take().expect("it runs");
        member.abort();
    }

    pub async fn restart(&mut self, n: usize) {
        until("the folder is free", async || match Member::open(self.options(n)).await {
            Ok(member) => Some(member),
            Err(OpenError::Store(Error::Locked { .. })) => None,
            Err(error) => panic!("the member does not open again: {error}"),
        })
        .await
        .put(self, n);
    }

    pub fn folder(&self, n: usize) -> PathBuf {
        match self.nodes[n].place.place() {
            Place::Folder(dir) => dir,
            Place::Simulated(_) => panic!("it lies in memory"),
        }
    }

    pub fn member(&self, n: usize) -> &Arc<Member> {
        self.nodes[n].member.as_ref().expect("it runs")
    }

    pub fn store(&self, n: usize) -> Arc<dyn Store> {
        self.member(n).clone()
    }

    pub fn take(&mut self, n: usize) -> Arc<Member> {
        self.nodes[n].member.take().expect("it runs")
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Arc<Member>)> {
        self.nodes.iter().enumerate().filter_map(|(n, node)| Some((n, node.member.as_ref()?)))
    }

    /// The one that a majority of the running members follows, once it answers.
    pub async fn leader(&self) -> usize {
        until("a leader", async || {
            let mut votes = Vec::new();
            for (_, member) in self.running() {
                votes.push(Host::status(&**member).await.ok()?.leader);
            }
            for (n, member) in self.running() {
                let followers = votes.iter().filter(|vote| **vote == Some(member.id())).count();
                if followers * 2 > self.nodes.len() && member.range(Range::key("none")).await.is_ok() {
                    return Some(n);
                }
            }
            None
        })
        .await
    }

    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.running().map(|(n, _)| n).find(|n| *n != leader).expect("a follower runs")
    }

    pub async fn term(&self, n: usize) -> u64 {
        Host::status(&**self.member(n)).await.expect("a status").term
    }

    /// Pulls the cables between this one and all others.
    pub fn isolate(&self, n: usize) {
        self.each_way(n, Hub::cut);
    }

    pub fn rejoin(&self, n: usize) {
        self.each_way(n, Hub::heal);
    }

    fn each_way(&self, n: usize, act: impl Fn(&Hub, &str, &str)) {
        for other in self.nodes.iter().filter(|other| other.name != self.nodes[n].name) {
            act(&self.hub, &self.nodes[n].name, &other.name);
        }
    }

    /// Waits until all that run have the same rows, and answers how many.
    pub async fn agree(&self) -> u64 {
        until("all members have the same", async || {
            let mut hashes = Vec::new();
            for (_, member) in self.running() {
                hashes.push(member.hash(None).await.ok()?);
            }
            let first = hashes.first()?;
            if hashes.iter().any(|hash| hash != first) {
                return None;
            }
            let (_, member) = self.running().next()?;
            Some(member.range(Range::all().count_only().serializable()).await.ok()?.count)
        })
        .await
    }
}

trait Put {
    fn put(self, cluster: &mut Cluster, n: usize);
}

impl Put for Member {
    fn put(self, cluster: &mut Cluster, n: usize) {
        cluster.nodes[n].member = Some(Arc::new(self));
    }
}

/// Asks again and again.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WAIT_MAX, looking).await.unwrap_or_else(|_| panic!("it never came to be that {what}"))
}

pub async fn put(store: &dyn Store, key: &str, value: &str) -> Result<Revision, Error> {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Ok(store.txn(Txn::of([Op::put(key, value)])).await?.revision)
}

/// Until it works, while there may be no leader.
pub async fn put_soon(store: &dyn Store, key: &str, value: &str) -> Revision {
    until("a put works", async || put(store, key, value).await.ok()).await
}

pub async fn get(store: &dyn Store, key: &str) -> Option<String> {
    let answer =
        until("a read works", async || store.range(Range::key(Bytes::copy_from_slice(key.as_bytes()))).await.ok());
    let answer = answer.await;
    answer.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

pub async fn members_of(member: &Member) -> Vec<MemberFact> {
    until("the members are told", async || Host::members(member, false).await.ok()).await
}

pub fn id_of(members: &[MemberFact], name: &str) -> MemberId {
    let found = members.iter().find(|fact| fact.contact.peer_urls == [url(name)]);
    found.unwrap_or_else(|| panic!("{name} is among {members:?}")).id
}
