//! `vt store`: a store of one's own, and the care of any that speaks etcd's protocol.
//!
//! ```text
//! serve     ChainFire alone, in etcd's place
//! link      how members are reached; told: what their refusals mean
//! status    every member that was named; facts: what the members say of each other
//! members   who they are, add, remove, promote, transfer
//! snapshot restore compact check   one verb each
//! migrate   a copy from one engine into another
//! load      what benches drive stores with
//! ```

mod check;
mod compact;
mod facts;
pub mod link;
mod load;
mod members;
mod migrate;
mod restore;
pub mod serve;
mod snapshot;
mod status;
pub mod told;

use clap::{Args, Subcommand};

use super::session::Session;
use crate::failure::Outcome;

/// The store itself: who its members are, how they are, copies of it
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt store status --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
  vt store members --json
  vt store snapshot backup.db")]
pub struct StoreArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serves a store with etcd's API, in the foreground, with etcd's own flags and ETCD_* variables
    ///
    /// As a program or a link named `etcd` it takes etcd's place. What is accepted without effect is noted on stderr.
    #[command(before_help = "Examples:
  vt store serve --data-dir /var/lib/store
  vt store serve --name n1 --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379
  ln -s $(command -v vt) /usr/local/bin/etcd && etcd --name n1")]
    Serve(serve::ServeArgs),
    /// Asks every member that --endpoints names how it is
    ///
    /// Ends with 1 when one does not answer or says that something is wrong.
    #[command(before_help = "Examples:
  vt store status
  vt store status --endpoints 10.0.0.1:2379,10.0.0.2:2379
  vt store status --json | jq -r '.items[] | select(.leader).name'")]
    Status(status::StatusArgs),
    /// Lists the members of the cluster
    #[command(before_help = "Examples:
  vt store members
  vt store members --json
  vt store members --endpoints 10.0.0.1:2379 --format csv")]
    Members(members::MembersArgs),
    /// Adds a member: first one that listens and has no vote
    ///
    /// Start it with the flags that the receipt shows, then give it a vote with `vt store promote`.
    #[command(before_help = "Examples:
  vt store add n4 --peer-url http://10.0.0.4:2380
  vt store add n4 --peer-url http://10.0.0.4:2380 --voter
  vt store add n4 --peer-url http://10.0.0.4:2380 --json")]
    Add(members::AddArgs),
    /// Removes a member
    #[command(before_help = "Examples:
  vt store remove n4
  vt store remove 8e9e05c52164694d
  vt store remove n4 --json")]
    Remove(members::NamedArgs),
    /// Gives a member that only listened a vote
    #[command(before_help = "Examples:
  vt store promote n4
  vt store promote 8e9e05c52164694d
  vt store promote n4 --json")]
    Promote(members::NamedArgs),
    /// Makes another member the leader
    #[command(before_help = "Examples:
  vt store transfer n2
  vt store transfer 8e9e05c52164694d
  vt store transfer n2 --json")]
    Transfer(members::NamedArgs),
    /// Saves a whole copy of the store in a file, checked and on disk when the command ends
    #[command(before_help = "Examples:
  vt store snapshot backup.db
  vt store snapshot /backup/$(date +%F).db --endpoints 10.0.0.1:2379
  vt store snapshot backup.db --json")]
    Snapshot(snapshot::SnapshotArgs),
    /// Makes a member of a new cluster from a snapshot; once for each member, with the same file
    ///
    /// Rows, revisions, leases, users and roles stay. Nothing is left of the old members and their addresses.
    #[command(before_help = "Examples:
  vt store restore backup.db --data-dir /var/lib/store
  vt store restore backup.db --data-dir d1 --name n1 --initial-cluster n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380
  vt store restore backup.db --data-dir d1 --name n1 --initial-cluster-token again --json")]
    Restore(restore::RestoreArgs),
    /// Gives up history, so that its space is used again
    #[command(before_help = "Examples:
  vt store compact --keep 1000
  vt store compact 52341
  vt store compact --keep 0 --json")]
    Compact(compact::CompactArgs),
    /// Copies a store into an empty one, of any engine, and compares the two
    ///
    /// Revisions are the target's own; their order is kept. An unfinished copy is marked, and nothing starts on it.
    /// The credentials are for whatever is not embedded.
    #[command(before_help = "Examples:
  vt store migrate --from embedded:/var/lib/vt/store --to etcd://10.0.0.1:2379
  vt store migrate --from etcd://10.0.0.1:2379 --to postgres://vt@db.example/vt --json
  vt store migrate --from postgres://vt@db.example/vt --to embedded:./store --password-file pw")]
    Migrate(migrate::MigrateArgs),
    /// Compares what the members hold, at one revision; or reads a whole data folder that nobody serves
    ///
    /// Ends with 1 when two differ, one does not answer, or the folder is damaged.
    #[command(before_help = "Examples:
  vt store check --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
  vt store check --revision 52341 --json
  vt store check --data-dir /var/lib/store")]
    Check(check::CheckArgs),
    /// Puts a load on a store and measures it; for benches
    #[command(
        hide = true,
        before_help = "Examples:
  vt store load put --clients 16 --connections 4
  vt store load mixed --clients 256 --connections 8 --milliseconds 5000 --json
  vt store load watch --watchers 1000 --clients 16 --total 500"
    )]
    Load(load::LoadArgs),
}

impl StoreArgs {
    /// Has tasks of its own beside the one that waits for them.
    pub fn serves(&self) -> bool {
        matches!(self.verb, Verb::Serve(_) | Verb::Migrate(_) | Verb::Check(_))
    }
}

pub async fn run(session: &Session, args: &StoreArgs) -> Outcome {
    match &args.verb {
        Verb::Serve(args) => serve::run(args).await,
        Verb::Status(args) => status::run(session, args).await,
        Verb::Members(args) => members::list(session, args).await,
        Verb::Add(args) => members::add(session, args).await,
        Verb::Remove(args) => members::remove(session, args).await,
        Verb::Promote(args) => members::promote(session, args).await,
        Verb::Transfer(args) => members::transfer(session, args).await,
        Verb::Snapshot(args) => snapshot::run(session, args).await,
        Verb::Restore(args) => restore::run(session, args).await,
        Verb::Compact(args) => compact::run(session, args).await,
        Verb::Migrate(args) => migrate::run(session, args).await,
        Verb::Check(args) => check::run(session, args).await,
        Verb::Load(args) => load::run(session, args).await,
    }
}
