//! `vt kv`: the keys of a store that speaks etcd's protocol.
//!
//! ```text
//! stretch   which keys: one, a range, a prefix, all from one on
//! show      rows and events as JSON and as lines
//! get put delete watch   one verb each
//! txn       a transaction as JSON, or as etcdctl writes it
//! ```

mod delete;
mod get;
mod put;
mod show;
pub mod stretch;
mod txn;
mod watch;

use clap::{Args, Subcommand};

use super::session::Session;
use crate::failure::Outcome;

/// Keys of a store: ChainFire's door, or any etcd
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt kv put greeting hello
  vt kv get --prefix users/ --json
  vt kv watch --prefix users/ --endpoints 10.0.0.1:2379,10.0.0.2:2379")]
pub struct KvArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows the row of a key, or the rows of many
    ///
    /// Ends with 3 when one key was asked for and does not exist.
    #[command(before_help = "Examples:
  vt kv get greeting
  vt kv get --prefix users/ --limit 10 --json
  vt kv get greeting --value-only --revision 42")]
    Get(get::GetArgs),
    /// Writes a value, from the command line, stdin or a file
    #[command(before_help = "Examples:
  vt kv put greeting hello
  vt kv put certificate @server.pem --if-revision 0
  date | vt kv put now - --lease 694d7f2e")]
    Put(put::PutArgs),
    /// Removes a key, or many
    ///
    /// Ends with 3 when one key was named and does not exist.
    #[command(before_help = "Examples:
  vt kv delete greeting
  vt kv delete --prefix users/
  vt kv delete a c --json       all keys from a up to c, without c")]
    Delete(delete::DeleteArgs),
    /// Shows changes as they happen, and goes on where it was when a member goes away
    #[command(before_help = "Examples:
  vt kv watch greeting
  vt kv watch --prefix users/ --json | jq -r .key
  vt kv watch --prefix '' --revision 1 --previous")]
    Watch(watch::WatchArgs),
    /// Compares, then does one of two lists of operations, all or nothing
    ///
    /// The document is JSON: {\"when\": [...], \"then\": [...], \"else\": [...]}, or the text that etcdctl reads.
    /// Ends with 8 when the comparisons do not hold and there is no `else`.
    #[command(before_help = "Examples:
  echo '{\"when\": [{\"key\": \"a\", \"version\": 0}], \"then\": [{\"put\": {\"key\": \"a\", \"value\": \"1\"}}]}' | vt kv txn
  vt kv txn change.json --json
  printf 'mod(\"a\") > \"0\"\\n\\nput a 2\\n\\nget a\\n\\n' | vt kv txn -")]
    Txn(txn::TxnArgs),
}

pub async fn run(session: &Session, args: &KvArgs) -> Outcome {
    match &args.verb {
        Verb::Get(args) => get::run(session, args).await,
        Verb::Put(args) => put::run(session, args).await,
        Verb::Delete(args) => delete::run(session, args).await,
        Verb::Watch(args) => watch::run(session, args).await,
        Verb::Txn(args) => txn::run(session, args).await,
    }
}
