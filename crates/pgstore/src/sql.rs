//! The statements, and rows as they come back.
//!
//! Names stand without a schema: every session's search path is the store's schema alone.
//!
//! Statements are planned once, often before there is anything in the tables, and have to be good when there is. So each
//! leaves the planner one way only: `OFFSET 0` keeps what is inside for what is outside of it to ask row by row, and
//! `+ 0` beside a column keeps an index of that column from offering itself.

use std::sync::LazyLock;

use bytes::Bytes;
use store::limits::KEY_BYTES_MAX;
use store::{Key, KeyValue, LeaseId, RangeEnd, Revision, SortBy, SortOrder};
use tokio_postgres::Row;

use crate::error::Failure;
use crate::schema::INDEXED_BYTES;

/// After every key there can be.
static CEILING: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![u8::MAX; KEY_BYTES_MAX + 1]));

/// When a lease runs out. Nobody could send a life sign while the database was down, so after its start every lease has
/// its full time again.
pub const DEADLINE: &str = "greatest(expires, pg_postmaster_start_time() + ttl * interval '1 second')";

/// A key's row, in the order of [`key_value`].
const ROW: &str = "key, value, created, revision, version, lease";

/// Takes the right to write until the transaction ends. What is read after it, in statements of their own, holds until
/// then: under READ COMMITTED each sees all that was committed before it began.
pub const LOCK: &str = "SELECT format, identity FROM head FOR UPDATE";

pub const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// A stretch of keys: from the first up to, not including, the second.
pub fn stretch(key: &Key, end: &RangeEnd) -> (Bytes, Bytes) {
    let end = match end {
        RangeEnd::Single => [key, &b"\0"[..]].concat().into(),
        RangeEnd::Exclusive(end) => end.clone(),
        RangeEnd::Unbounded => CEILING.clone(),
    };
    (key.clone(), end)
}

/// As a number of the database; revisions that nobody can have reached may be cut.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn within(key: &str, start: &str, end: &str) -> String {
    let n = INDEXED_BYTES;
    format!(
        "substr({key}, 1, {n}) >= substr({start}, 1, {n}) AND substr({key}, 1, {n}) <= substr({end}, 1, {n}) \
         AND {key} >= {start} AND {key} < {end}"
    )
}

fn by_key(direction: &str) -> String {
    format!("substr(key, 1, {INDEXED_BYTES}) {direction}, key {direction}")
}

/// Newest, compacted, then for every row where it is from: -1 for the present, else the number of the stretch of the
/// past; the row; its place in its revision. `$1`, `$2`: stretches of the present; `$3`, `$4`, `$5`: stretches of the
/// past, each with its revision.
pub static LOAD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT h.newest, h.compacted, r.* FROM head h LEFT JOIN LATERAL (\
           SELECT -1::bigint, p.* FROM unnest($1::bytea[], $2::bytea[]) s(a, z) CROSS JOIN LATERAL (\
             SELECT {ROW}, nth FROM revisions WHERE {span} AND ended IS NULL OFFSET 0) p \
           UNION ALL \
           SELECT s.number, p.*, 0 FROM unnest($3::bytea[], $4::bytea[], $5::bigint[]) \
             WITH ORDINALITY s(a, z, at, number) CROSS JOIN LATERAL ({past} OFFSET 0) p\
         ) r ON true",
        span = within("key", "s.a", "s.z"),
        past = past_rows("s.a", "s.z", "s.at"),
    )
});

fn past_rows(start: &str, end: &str, at: &str) -> String {
    let span = within("key", start, end);
    format!(
        "SELECT {ROW} FROM revisions WHERE {span} AND ended IS NULL AND revision + 0 <= {at} \
         UNION ALL SELECT {ROW} FROM revisions WHERE {span} AND ended > {at} AND revision + 0 <= {at}"
    )
}

/// Rows of the present that are attached to leases `$1`, each with its place in its revision.
pub static ATTACHED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {ROW}, nth FROM revisions WHERE lease = ANY($1::bigint[]) AND ended IS NULL"));

/// Of leases `$1`: id, time to live, whether it ran out.
pub static TERMS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT id, ttl, {DEADLINE} <= clock_timestamp() FROM leases WHERE id = ANY($1::bigint[])")
});

/// `$1` to `$4`: rows that end (revision, place, key) and when; the others: rows to write, column by column.
///
/// Rows that end are all there, so each insertion of them meets its row and becomes an update: found by the primary
/// key, which an update that joins them would leave to the planner.
pub const WRITE: &str = "WITH gone AS (\
      INSERT INTO revisions (revision, nth, key, created, version, ended) \
      SELECT revision, nth, key, 0, 0, ended \
        FROM unnest($1::bigint[], $2::int[], $3::bytea[], $4::bigint[]) d(revision, nth, key, ended) \
      ON CONFLICT (revision, nth) DO UPDATE SET ended = excluded.ended) \
    INSERT INTO revisions (revision, nth, key, value, created, version, lease, ended) \
    SELECT * FROM unnest($5::bigint[], $6::int[], $7::bytea[], $8::bytea[], $9::bigint[], $10::bigint[], \
                         $11::bigint[], $12::bigint[])";

/// `$1` newest, `$2` compacted.
pub const ADVANCE: &str = "UPDATE head SET newest = $1::bigint, compacted = $2::bigint";

/// `$1` the channel, `$2` the newest revision. A transaction of its own after the commit: one that notifies holds a lock
/// of the whole server while it commits, and one that cannot notify would not commit.
pub const NOTIFY: &str = "SELECT pg_notify($1::text, $2::text)";

/// Leases `$1` with times to live `$2` begin their time now; leases `$3` are gone.
pub const TERMS_WRITE: &str = "WITH gone AS (DELETE FROM leases WHERE id = ANY($3::bigint[])) \
    INSERT INTO leases (id, ttl, expires) \
    SELECT l.id, l.ttl, clock_timestamp() + l.ttl * interval '1 second' FROM unnest($1::bigint[], $2::bigint[]) l(id, ttl) \
    ON CONFLICT (id) DO UPDATE SET ttl = excluded.ttl, expires = excluded.expires";

pub const HEAD: &str = "SELECT newest, compacted FROM head";

pub const STATUS: &str = "SELECT newest, compacted, pg_total_relation_size('head') + \
                          pg_total_relation_size('revisions') + pg_total_relation_size('leases') FROM head";

/// Of lease `$1`: time to live, what is left of it in whole seconds, its keys in order.
pub static TIME_TO_LIVE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT ttl, floor(extract(epoch FROM {DEADLINE} - clock_timestamp()))::bigint, \
                ARRAY(SELECT key FROM revisions WHERE lease = $1::bigint AND ended IS NULL ORDER BY {order}) \
         FROM leases WHERE id = $1::bigint",
        order = by_key("ASC"),
    )
});

pub static LEASES: LazyLock<String> =
    LazyLock::new(|| format!("SELECT id FROM leases WHERE {DEADLINE} > clock_timestamp() ORDER BY id"));

/// At most `$1` leases that ran out, those that did so first before the others.
pub static RAN_OUT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT id FROM leases WHERE expires <= (SELECT clock_timestamp()) AND {DEADLINE} <= clock_timestamp() \
         ORDER BY expires LIMIT $1::bigint"
    )
});

/// Deletes at most `$2` rows that nobody can read any more once `$1` is compacted. Those of that revision itself may
/// still be watched.
pub const RECLAIM: &str = "WITH gone AS (SELECT revision, nth FROM revisions \
      WHERE ended IS NOT NULL AND ended + 0 <= $1::bigint AND revision + 0 < $1::bigint \
      ORDER BY ended + 0 LIMIT $2::bigint) \
    DELETE FROM revisions r USING gone g WHERE r.revision = g.revision AND r.nth = g.nth";

/// Whether this session keeps the house, from now on until it ends.
pub const KEEP_HOUSE: &str = "SELECT pg_try_advisory_lock((1346916180::bigint << 32) | \
                              (SELECT oid FROM pg_namespace WHERE nspname = current_schema())::bigint)";

/// Changes from revision `$1` to `$2` of keys from `$3` up to `$4`, whole revisions, in order: newest, compacted,
/// revision, the row, the row before it. No further revision begins once those before it hold `$5` bytes.
pub static HISTORY: LazyLock<String> = LazyLock::new(|| {
    let n = INDEXED_BYTES;
    format!(
        "SELECT h.newest, h.compacted, e.key, e.value, e.created, e.revision, e.version, e.lease, \
                p.key, p.value, p.created, p.revision, p.version, p.lease \
         FROM head h LEFT JOIN (\
             SELECT nth, {ROW}, sum(octet_length(key) + coalesce(octet_length(value), 0)) \
               OVER (ORDER BY revision RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before \
             FROM revisions WHERE revision >= $1::bigint AND revision <= $2::bigint \
               AND key >= $3::bytea AND key < $4::bytea\
           ) e ON coalesce(e.before, 0) < $5::bigint \
         LEFT JOIN revisions p ON $6::bool AND substr(p.key, 1, {n}) = substr(e.key, 1, {n}) AND p.key = e.key \
           AND p.ended = e.revision AND p.revision < e.revision \
         ORDER BY e.revision, e.nth"
    )
});

/// Which rows a range looks through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Present,
    /// As of revision `$10`.
    Past,
    /// Rows of the present from revision `$3` on, found by revision instead of by key.
    Recent,
}

/// Newest, compacted, count (when `$7` asks for it), then the rows. `$1`, `$2` stretch; `$3` to `$6` least and most of
/// mod and create revision; `$8` with values; `$9` the least number of rows that is enough.
pub fn range(source: Source, by: SortBy, order: SortOrder) -> String {
    const BOUNDS: &str = "revision + 0 >= $3::bigint AND revision + 0 <= $4::bigint \
                          AND created >= $5::bigint AND created <= $6::bigint";
    let direction = match order {
        SortOrder::Ascend => "ASC",
        SortOrder::Descend => "DESC",
    };
    let sort = match by {
        SortBy::Key => by_key(direction),
        SortBy::Version => format!("version {direction}, key"),
        SortBy::Create => format!("created {direction}, key"),
        SortBy::Mod => format!("revision {direction}, key"),
        SortBy::Value => format!("value {direction}, key"),
    };
    let span = within("key", "$1::bytea", "$2::bytea");
    let parts = match source {
        Source::Present => vec![format!("revisions WHERE {span} AND ended IS NULL")],
        Source::Past => vec![
            format!("revisions WHERE {span} AND ended IS NULL AND revision + 0 <= $10::bigint"),
            format!("revisions WHERE {span} AND ended > $10::bigint AND revision + 0 <= $10::bigint"),
        ],
        Source::Recent => vec!["recent WHERE key >= $1::bytea AND key < $2::bytea AND ended IS NULL".to_owned()],
    };
    let with = match source {
        Source::Present | Source::Past => String::new(),
        // Without a word about `ended`, so that no index of the present offers itself.
        Source::Recent => format!(
            "WITH recent AS MATERIALIZED (SELECT {ROW}, ended FROM revisions \
             WHERE revision >= $3::bigint AND revision <= $4::bigint) "
        ),
    };
    let count = parts.iter().map(|part| format!("(SELECT count(*) FROM {part})")).collect::<Vec<_>>().join(" + ");
    // Each part along its index, no further than the limit; together they may be more, which the reader puts in order.
    let part = |part: &String| {
        format!(
            "(SELECT key, CASE WHEN $8::bool THEN value ELSE '' END AS value, created, revision, version, lease \
              FROM {part} AND {BOUNDS} ORDER BY {sort} LIMIT $9::bigint)"
        )
    };
    let rows = parts.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ");
    format!(
        "{with}SELECT h.newest, h.compacted, CASE WHEN $7::bool THEN {count} END, r.* \
         FROM head h LEFT JOIN LATERAL ({rows}) r ON true"
    )
}

/// The row that begins in column `first`; `None` when there is none, as an outer join says it. A deleted key's row has
/// an empty value.
pub fn key_value(row: &Row, first: usize) -> Result<Option<KeyValue>, Failure> {
    let Some(key) = column::<Option<&[u8]>>(row, first)? else { return Ok(None) };
    let value: Option<&[u8]> = column(row, first + 1)?;
    let lease: Option<i64> = column(row, first + 5)?;
    Ok(Some(KeyValue {
        key: Bytes::copy_from_slice(key),
        value: value.map(Bytes::copy_from_slice).unwrap_or_default(),
        create_revision: revision(row, first + 2)?,
        mod_revision: revision(row, first + 3)?,
        version: column::<i64>(row, first + 4)? as u64,
        lease: lease.map(LeaseId),
    }))
}

pub fn revision(row: &Row, nth: usize) -> Result<Revision, Failure> {
    Ok(Revision(column::<i64>(row, nth)? as u64))
}

pub fn column<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, nth: usize) -> Result<T, Failure> {
    row.try_get(nth).map_err(Failure::from)
}

/// The first row of a statement that always has one.
pub fn first(rows: &[Row]) -> Result<&Row, Failure> {
    rows.first().ok_or_else(|| Failure::broken("table head is empty"))
}
