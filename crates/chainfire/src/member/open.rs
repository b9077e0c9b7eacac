//! Putting a member together, from the bottom to the top.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, Raft, SnapshotPolicy, StepDownPolicy};
use parking_lot::Mutex;
use store::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::changes::Changes;
use super::identity::Identity;
use super::lead::Lead;
use super::leases::Leases;
use super::options::Settled;
use super::peer::network::Listener;
use super::peer::serve::{Service, serve};
use super::peer::tls::{Armour, Tls};
use super::peers::Peers;
use super::place::Taken;
use super::proposer::Proposer;
use super::reads::Reads;
use super::rebuild::{self, Others};
use super::replicate::Network;
use super::room::Room;
use super::service::Served;
use super::standing::Standing;
use super::types::{Contact, Seat};
use super::{Core, InitialState, Inner, Member, OpenError, Options, joining, leadership};
use crate::log::Log;
use crate::state::LeaseHook;

/// Entries that stay in the log although they are in a snapshot, for members that are a little behind; as in etcd.
const KEPT_ENTRIES: u64 = 5000;

/// For a snapshot to arrive and be put in place, from Raft's point of view; the sender has limits of its own.
const SNAPSHOT_MS: u64 = 15 * 60 * 1000;

/// Elections after which a leader without a quorum falls silent, and then speaks again, so that those who hear it but
/// cannot answer may choose another.
const PROBE_ELECTIONS: u64 = 3;

fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn config(options: &Options, cluster: u64) -> Result<Config, OpenError> {
    let election = ms(options.election);
    let config = Config {
        cluster_name: format!("{cluster:x}"),
        heartbeat_interval: ms(options.heartbeat),
        // A follower waits for the longer one to pass, and then for anything between the two.
        election_timeout_min: election / 2,
        election_timeout_max: election,
        install_snapshot_timeout: SNAPSHOT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries.max(1)),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES.min(options.snapshot_entries),
        removed_leader_step_down: StepDownPolicy::After(2 * ms(options.heartbeat)),
        quorum_loss_probe_interval: Some(PROBE_ELECTIONS * election),
        enable_pre_vote: Some(true),
        // A restarted leader does not know what happened meanwhile.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| OpenError::Settings(error.to_string()))
}

/// Who this member is: as its folder says, or else as it is told, checked against what others say.
async fn identify(settled: &Settled, taken: &Taken, armour: Option<&Armour>) -> Result<Identity, OpenError> {
    let options = &settled.options;
    if let Some(identity) = taken.identity().await? {
        let Options { name, initial_cluster_token, advertise_peer_urls, .. } = options;
        identity.check(&taken.path(), name, initial_cluster_token, advertise_peer_urls)?;
        return Ok(identity);
    }
    let identity = match options.initial_cluster_state {
        InitialState::Existing => joining::find(settled, &options.network, armour).await?,
        InitialState::New => {
            let first = Identity::first(&options.name, &options.initial_cluster_token, &settled.initial);
            joining::check_first(settled, &first, &options.network, armour).await?;
            first
        }
    };
    taken.set_identity(identity.clone()).await?;
    Ok(identity)
}

impl Member {
    /// Opens a member, or makes it when its place is empty. Needs a tokio runtime. It may not have a leader yet.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let settled = options.settle()?;
        let options = &settled.options;
        let armour = options.tls.as_ref().map(Tls::armour).transpose()?;
        let taken = options.place.clone().take().await?;
        let identity = Arc::new(identify(&settled, &taken, armour.as_ref()).await?);
        let mut listeners = Vec::new();
        for address in &settled.listen {
            let listening = options.network.listen(address).await;
            let listener = listening.map_err(|source| OpenError::Listen { address: address.to_string(), source })?;
            listeners.push((listener, armour.clone().filter(|_| address.tls)));
        }
        let log = taken.log(identity.cluster).await?;
        let built = Self::build(&settled, armour, taken, identity, log.clone(), listeners).await;
        if built.is_err() {
            // So that the folder is free when this is answered.
            let _ = log.close().await;
        }
        built
    }

    async fn build(
        settled: &Settled,
        armour: Option<Armour>,
        taken: Taken,
        identity: Arc<Identity>,
        log: Log,
        listeners: Vec<(Box<dyn Listener>, Option<Armour>)>,
    ) -> Result<Self, OpenError> {
        let options = &settled.options;
        let leases = Arc::new(Leases::default());
        let hook = leases.clone();
        let hook = LeaseHook(Arc::new(move |changes| hook.changed(changes)));
        let state = match taken.state(hook.clone()).await {
            Err(OpenError::Store(damage @ Error::Corrupt { .. })) => {
                let others = Others::of(settled, &identity, armour.as_ref());
                rebuild::state(damage, &taken, &log, hook, &others).await?
            }
            state => state?,
        };
        let reader = state.reader();

        let (cluster, me) = (identity.cluster, identity.member);
        let peers = Arc::new(Peers::new(cluster, me, options.network.clone(), armour.clone()));
        let config = Arc::new(config(options, cluster)?);
        let core = Raft::new(me, config, Network(peers.clone()), log.clone(), state).await;
        let core: Core = core.map_err(|fatal| Error::storage("start Raft", fatal))?;

        let limit = options.request_limit;
        let standing = Arc::new(Standing::new(me, &core, options.election));
        let room = Room::new(reader.clone());
        let proposer =
            Proposer::new(core.clone(), standing.clone(), peers.clone(), reader.clone(), room.clone(), limit);
        let reads = Reads::new(core.clone(), standing.clone(), peers.clone(), reader.clone(), limit);
        let changes = Arc::new(Changes {
            core: core.clone(),
            standing: standing.clone(),
            reads: reads.clone(),
            token: identity.token.clone(),
            alone: settled.listen.is_empty(),
            clock: world::Clock::real(),
            limit,
            one: tokio::sync::Mutex::default(),
        });
        let lead = Arc::new(Lead {
            standing: standing.clone(),
            peers: peers.clone(),
            proposer: proposer.clone(),
            reads: reads.clone(),
            reader: reader.clone(),
            leases: leases.clone(),
            changes: changes.clone(),
            limit,
        });
        let served: Arc<dyn Service> = Arc::new(Served {
            core: core.clone(),
            identity: identity.clone(),
            standing: standing.clone(),
            reader: reader.clone(),
            lead: lead.clone(),
            inline: options.place.is_inline(),
        });
        let mut tasks = JoinSet::new();
        for (listener, armour) in listeners {
            tasks.spawn(serve(listener, armour, served.clone()));
        }
        let inner = Arc::new(Inner {
            identity,
            core,
            log,
            reader,
            standing,
            peers,
            proposer,
            reads,
            room,
            leases,
            lead,
            ended: watch::Sender::new(None),
            closed: AtomicBool::new(false),
            _taken: taken,
        });
        tasks.spawn(leadership::follow(inner.clone()));
        tasks.spawn(leadership::expire(inner.clone()));
        tasks.spawn(leadership::upkeep(inner.clone()));
        tasks.spawn(leadership::publish(inner.clone(), options.name.clone(), options.advertise_client_urls.clone()));
        tasks.spawn(changes.look_after());
        let watching = inner.room.clone();
        tasks.spawn(watching.watch(me, inner.log.clone(), options.quota_bytes, inner.proposer.clone()));
        let member = Self { inner, tasks: Mutex::new(tasks) };
        member.begin(options.election).await?;
        Ok(member)
    }

    /// The first members become a cluster; the only one that votes needs nobody's vote.
    async fn begin(&self, election: Duration) -> Result<(), OpenError> {
        let inner = &self.inner;
        let me = inner.identity.member;
        let initialized = inner.core.is_initialized().await.map_err(|fatal| Error::storage("start Raft", fatal))?;
        if initialized {
            let membership = inner.standing.membership();
            let mut voters = membership.voter_ids();
            if voters.next() == Some(me) && voters.next().is_none() {
                let elected = inner.core.trigger().elect(false).await;
                elected.map_err(|fatal| Error::storage("start Raft", fatal))?;
            }
            return Ok(());
        }
        let seats = inner.identity.initial.iter().map(|(id, initial)| {
            let peer_urls = initial.peer_urls.clone();
            (*id, Seat { contact: Contact { peer_urls, ..Contact::default() }, to_vote: false })
        });
        let seats: BTreeMap<_, _> = seats.collect();
        // All may begin, with the same; one after the other, so that they do not all ask for votes at once.
        let Some(rank) = seats.keys().position(|id| *id == me) else { return Ok(()) };
        let beginning = inner.clone();
        self.tasks.lock().spawn(async move {
            tokio::time::sleep(election * rank as u32).await;
            match beginning.core.initialize(seats).await {
                // Somebody else was first, and this member has heard of it.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => tracing::error!(%error, "the cluster could not be begun"),
            }
        });
        Ok(())
    }
}
