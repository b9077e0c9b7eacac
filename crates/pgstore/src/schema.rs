//! The tables, how they are made, and whether what is there is ours.
//!
//! ```text
//! head        one row: format, identity, newest and compacted revision. Its lock is the right to write.
//! revisions   one row for each change of a key: (revision, nth change in it), the key, what it became (no value: it was
//!             deleted), and `ended`, the revision at which that was over. Rows with `ended` null are the present.
//! leases      time to live and when it runs out, by the database's clock
//! ```
//!
//! A row holds from `revision` up to, not including, `ended`: the state as of R is `revision <= R` and (`ended` null or
//! `> R`). A delete's row holds for no revision (`ended = revision`); it is there for watches.
//!
//! A key may be longer than what an index of PostgreSQL takes (2,704 bytes of a page), so indexes hold the first
//! [`INDEXED_BYTES`] of it. Conditions name both that and the key; since the order of what is cut off agrees with the
//! order of the whole, `ORDER BY substr(key, ..), key` is the order of keys.

use std::sync::Arc;

use store::Revision;
use tokio_postgres::{Client, Row};

use crate::error::{OpenError, told};

/// Of the tables. A newer one is refused.
pub const FORMAT: i64 = 1;

/// Of a key, in an index.
pub const INDEXED_BYTES: usize = 2048;

/// The first with `plan_cache_mode` and a materialized `WITH`.
const SERVER_LEAST: u32 = 12;

/// Says on table `head` that the schema is ours.
const MARK: &str = "Photon store";

/// Held while a schema is looked at and made, so that two processes do not both make it.
const MAKING_LOCK: i64 = 0x5048_4f54_0000_0000;

/// What every session checks again, so that it never goes on with another store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity(pub Arc<str>);

/// Makes the schema when it is missing, and checks it; answers the newest revision too. `client` has nothing under way.
pub async fn open(client: &Client, schema: &str) -> Result<(Identity, Revision), OpenError> {
    check_server(client).await?;
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({MAKING_LOCK})");
    run(client, "lock the schema", &begin).await?;
    let opened = look(client, schema).await;
    // Undoes what was made when that failed half way.
    let end = if opened.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = run(client, "make the schema", end).await;
    let opened = opened?;
    ended?;
    Ok(opened)
}

async fn check_server(client: &Client) -> Result<(), OpenError> {
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
               pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool";
    let row = one(client, "ask for the server's version", sql).await?;
    let (version, number, standby, read_only): (String, i32, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    if number < SERVER_LEAST as i32 * 10_000 {
        return Err(OpenError::Version { found: version, least: SERVER_LEAST });
    }
    if standby {
        return Err(OpenError::Standby);
    }
    if read_only {
        return Err(OpenError::ReadOnly);
    }
    Ok(())
}

async fn look(client: &Client, schema: &str) -> Result<(Identity, Revision), OpenError> {
    // The name has been admitted: it holds nothing that would have to be quoted.
    let sql = format!(
        "SELECT n.oid IS NOT NULL, \
                EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid), \
                (SELECT obj_description(c.oid, 'pg_class') FROM pg_class c \
                 WHERE c.relnamespace = n.oid AND c.relname = 'head') \
         FROM (SELECT) x LEFT JOIN pg_namespace n ON n.nspname = '{schema}'"
    );
    let row = one(client, "look at the schema", &sql).await?;
    let (exists, filled, mark): (bool, bool, Option<String>) = (row.get(0), row.get(1), row.get(2));
    if filled && mark.as_deref() != Some(MARK) {
        return Err(OpenError::Foreign { schema: schema.into() });
    }
    if !exists {
        run(client, "make the schema", &format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    if !filled {
        run(client, "make the tables", &tables(schema)).await?;
    }
    let head = format!("SELECT format, identity, newest FROM \"{schema}\".head");
    let head = one(client, "read the format", &head).await?;
    // What stands there may have been altered by anybody.
    let read = || Ok((head.try_get(0)?, head.try_get(1)?, head.try_get(2)?));
    let (found, identity, newest): (i64, String, i64) = read().map_err(|error| failed("read the format", &error))?;
    if found != FORMAT {
        return Err(OpenError::Format { schema: schema.into(), found, known: FORMAT });
    }
    Ok((Identity(identity.into()), Revision(newest as u64)))
}

fn tables(schema: &str) -> String {
    let identity = world::random::hex(16);
    format!(
        r#"
SET LOCAL search_path TO "{schema}";

-- Room in the page, so that a commit changes this one page and no index.
CREATE TABLE head (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    format bigint NOT NULL,
    identity text NOT NULL,
    newest bigint NOT NULL,
    compacted bigint NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE head IS '{MARK}';
INSERT INTO head (format, identity, newest, compacted) VALUES ({FORMAT}, '{identity}', 1, 0);

CREATE TABLE revisions (
    revision bigint NOT NULL,
    nth int NOT NULL,
    key bytea NOT NULL,
    value bytea,
    created bigint NOT NULL,
    version bigint NOT NULL,
    lease bigint,
    ended bigint,
    PRIMARY KEY (revision, nth)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- The present.
CREATE INDEX present ON revisions (substr(key, 1, {INDEXED_BYTES})) WHERE ended IS NULL;
-- The past of a key, and what a row was before a change.
CREATE INDEX past ON revisions (substr(key, 1, {INDEXED_BYTES}), ended) WHERE ended IS NOT NULL;
-- What a compaction gives up, and not for anything else.
CREATE INDEX over ON revisions ((ended + 0)) WHERE ended IS NOT NULL;
CREATE INDEX leased ON revisions (lease) WHERE lease IS NOT NULL AND ended IS NULL;

CREATE TABLE leases (
    id bigint PRIMARY KEY,
    ttl bigint NOT NULL,
    expires timestamptz NOT NULL
);
CREATE INDEX expiring ON leases (expires);
"#
    )
}

async fn run(client: &Client, act: &'static str, sql: &str) -> Result<(), OpenError> {
    client.batch_execute(sql).await.map_err(|error| failed(act, &error))
}

async fn one(client: &Client, act: &'static str, sql: &str) -> Result<Row, OpenError> {
    client.query_one(sql, &[]).await.map_err(|error| failed(act, &error))
}

fn failed(act: &'static str, error: &tokio_postgres::Error) -> OpenError {
    OpenError::Schema { act, reason: told(error) }
}
