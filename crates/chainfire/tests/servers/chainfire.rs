//! ChainFire's etcd API over each engine, to be compared with etcd.

use std::sync::Arc;
use std::time::Duration;

use ::chainfire::door::{self, Host, Options, solo};
use ::chainfire::member::{self, Member, Place};
use ::chainfire::{Embedded, Options as Durable};
use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use store::Store;
use store::memory::Memory;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Server, folder, free_port};

/// What it costs to check a password is nothing that is compared.
const PASSWORD_ROUNDS: u32 = 10;

const LEADER_WAIT: Duration = Duration::from_mins(1);
const LEADER_LOOK_EVERY: Duration = Duration::from_millis(20);

fn at(url: String) -> Options {
    Options { password_rounds: PASSWORD_ROUNDS, ..Options::new([url]) }
}

fn options() -> Options {
    at("http://127.0.0.1:0".to_owned())
}

fn endpoint(handle: &door::Handle) -> String {
    format!("http://{}", handle.addresses()[0])
}

async fn solo(store: Arc<dyn Store>, kept: impl Send + Sync + 'static) -> Result<Server> {
    let handle = solo::serve(options(), store).await.context("a door")?;
    Ok(Server::new(endpoint(&handle), (handle, kept)))
}

pub async fn memory() -> Result<Server> {
    solo(Arc::new(Memory::new()), ()).await
}

pub async fn embedded() -> Result<Server> {
    let dir = tempfile::tempdir_in(folder())?;
    let store = Embedded::open(dir.path(), Durable::default()).await?;
    solo(Arc::new(store), dir).await
}

/// A member of a cluster that has no other.
pub async fn member() -> Result<Server> {
    doors(1).await?.pop().context("a member")
}

/// One of three members, not the leader: each write goes over the leader and comes back.
pub async fn follower() -> Result<Server> {
    let Cluster { members, dirs } = cluster(3).await?;
    let mut follower = None;
    for (url, member) in &members {
        if Host::status(&**member).await?.leader != Some(member.id()) {
            follower = Some((url.clone(), member.clone()));
        }
    }
    let (url, follower) = follower.context("somebody who does not lead")?;
    let handle = door::serve(at(url), follower.clone(), follower).await.context("a door")?;
    Ok(Server::new(endpoint(&handle), (handle, members, dirs)))
}

/// Three members, each with a door of its own.
pub async fn three() -> Result<Vec<Server>> {
    doors(3).await
}

async fn doors(count: usize) -> Result<Vec<Server>> {
    let Cluster { members, dirs } = cluster(count).await?;
    let mut servers = Vec::new();
    for ((url, member), dir) in members.into_iter().zip(dirs) {
        let handle = door::serve(at(url), member.clone(), member).await.context("a door")?;
        servers.push(Server::new(endpoint(&handle), (handle, dir)));
    }
    Ok(servers)
}

struct Cluster {
    /// Each with the URL that it gives to clients.
    members: Vec<(String, Arc<Member>)>,
    dirs: Vec<TempDir>,
}

/// Members in this process, with a leader that all of them know.
async fn cluster(count: usize) -> Result<Cluster> {
    let peers: Vec<(String, String)> = (0..count)
        .map(|n| Ok((format!("m{n}"), format!("http://127.0.0.1:{}", free_port()?))))
        .collect::<Result<_>>()?;
    let dirs: Vec<TempDir> = (0..count).map(|_| tempfile::tempdir_in(folder())).collect::<Result<_, _>>()?;
    let clients = peers.iter().map(|_| Ok(format!("http://127.0.0.1:{}", free_port()?)));
    let clients: Vec<String> = clients.collect::<Result<_>>()?;
    let open = peers.iter().zip(&dirs).zip(&clients).map(|(((name, url), dir), client)| {
        Member::open(member::Options {
            name: name.clone(),
            place: Place::Folder(dir.path().to_owned()),
            listen_peer_urls: vec![url.clone()],
            advertise_peer_urls: vec![url.clone()],
            advertise_client_urls: vec![client.clone()],
            initial_cluster: peers.clone(),
            ..member::Options::default()
        })
    });
    let members: Vec<Arc<Member>> = try_join_all(open).await?.into_iter().map(Arc::new).collect();
    let until = Instant::now() + LEADER_WAIT;
    loop {
        let statuses = try_join_all(members.iter().map(|member| Host::status(&**member))).await?;
        if statuses.iter().all(|status| status.leader.is_some() && status.leader == statuses[0].leader) {
            return Ok(Cluster { members: clients.into_iter().zip(members).collect(), dirs });
        }
        if Instant::now() > until {
            bail!("no leader");
        }
        sleep(LEADER_LOOK_EVERY).await;
    }
}
