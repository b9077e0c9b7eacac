//! The rows as a table in memory, fed by a watch; and reads that go to the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Error, Id, Row, Scope};
use parking_lot::RwLock;
use store::{Range, Revision, Store};
use tokio::sync::watch;

use crate::keys;
use crate::outage::Outage;

/// Rows in one answer of the store: a message of a store over a network has its limit.
const PAGE_ROWS: usize = 1000;
/// Reading one page takes no longer, or the store counts as away.
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);
/// A store that nobody asks is asked this often whether it is there: a watch on one that is away is only silent.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// Between two attempts to read all rows again.
const AGAIN_PAUSE: Duration = Duration::from_millis(500);

/// All rows at one revision. Cheap to clone; never changes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub revision: u64,
    rows: BTreeMap<Id, Arc<Row>>,
    /// Rows that could not be read, with the reason. The others go on.
    pub quarantine: BTreeMap<String, String>,
}

impl Table {
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Self {
        let rows = rows.into_iter().map(|row| (row.id.clone(), Arc::new(row))).collect();
        Self { revision: 0, rows, quarantine: BTreeMap::new() }
    }

    pub fn get(&self, id: &Id) -> Option<&Arc<Row>> {
        self.rows.get(id)
    }

    /// In order of id, so by time of creation within a kind.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    /// All rows of a kind, in order of creation.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Arc<Row>> {
        self.iter().filter(move |row| row.kind == kind)
    }

    /// Rows of a kind that live at exactly `scope`.
    pub fn at<'a>(&'a self, scope: &'a Scope, kind: &'a str) -> impl Iterator<Item = &'a Arc<Row>> {
        self.of_kind(kind).filter(move |row| row.scope == *scope)
    }

    /// Rows that live at `scope` or below it.
    pub fn below<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a Arc<Row>> {
        self.iter().filter(move |row| scope.contains(&row.scope))
    }

    /// Rows that `id`'s plan made.
    pub fn owned_by<'a>(&'a self, id: &'a Id) -> impl Iterator<Item = &'a Arc<Row>> {
        self.iter().filter(move |row| row.owner.as_ref() == Some(id))
    }
}

/// A table that follows the store. Clones share it.
#[derive(Clone, Debug)]
pub struct Rows {
    table: Arc<RwLock<Arc<Table>>>,
    revision: watch::Receiver<u64>,
    outage: Outage,
}

/// What a change of the table was about, for those who follow it.
#[derive(Clone, Debug)]
pub struct Changed {
    pub before: Option<Arc<Row>>,
    pub after: Option<Arc<Row>>,
}

/// Changes that may wait for a follower. One that falls further behind looks at the whole table instead.
pub const CHANGES_MAX: usize = 1024;

impl Rows {
    /// Reads all rows and follows the store in a task of its own until the returned handle is dropped. When the store
    /// does not answer, the task waits until it does and says so in [`Rows::outage`].
    pub async fn follow(store: Arc<dyn Store>) -> Result<(Rows, tokio::sync::broadcast::Sender<Changed>), Error> {
        let (table, revision) = read_all(&*store).await?;
        let (seen, revision_seen) = watch::channel(revision.0);
        let outage = Outage::new();
        let table = Arc::new(RwLock::new(Arc::new(table)));
        let rows = Rows { table, revision: revision_seen, outage: outage.clone() };
        let (changes, _) = tokio::sync::broadcast::channel(CHANGES_MAX);
        let task = Follower { store, table: Arc::downgrade(&rows.table), changes: changes.clone(), seen, outage };
        tokio::spawn(task.run(revision));
        Ok((rows, changes))
    }

    /// Whether the store answers.
    pub fn outage(&self) -> &Outage {
        &self.outage
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    /// Waits until the table holds everything up to `revision`.
    pub async fn reach(&self, revision: u64) {
        let mut seen = self.revision.clone();
        // The follower lives as long as the store: an error means shutdown, and then nobody waits for the answer.
        let _ = seen.wait_for(|at| *at >= revision).await;
    }
}

struct Follower {
    store: Arc<dyn Store>,
    table: std::sync::Weak<RwLock<Arc<Table>>>,
    changes: tokio::sync::broadcast::Sender<Changed>,
    seen: watch::Sender<u64>,
    outage: Outage,
}

impl Follower {
    async fn run(self, mut at: Revision) {
        loop {
            tokio::select! {
                ended = self.watch(at) => match ended {
                    Ok(()) => {}
                    Err(error) => tracing::warn!(%error, "the view of rows lost its watch and reads all rows again"),
                },
                () = self.outage.suspected() => {}
                () = self.missed() => {}
            }
            match self.read_again().await {
                Some(revision) => at = revision,
                None => return,
            }
        }
    }

    /// Ends when the store does not answer a look.
    async fn missed(&self) {
        let look = Range::prefix(keys::ROWS).limit(1).keys_only().uncounted();
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            let answer = tokio::time::timeout(PAGE_TIME_MAX, self.store.range(look.clone())).await;
            if !matches!(answer, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// Brings the table up to date by reading everything, however long that takes; `None` when nobody needs it any more.
    async fn read_again(&self) -> Option<Revision> {
        loop {
            // First, so that a store that answers reads and ends every watch is not asked without a pause.
            tokio::time::sleep(AGAIN_PAUSE).await;
            // The table is gone: so is whoever wanted it followed.
            self.table.upgrade()?;
            match read_all(&*self.store).await {
                Ok((table, revision)) => {
                    self.replace(table, revision)?;
                    if let Some(away) = self.outage.ended() {
                        let seconds = world::Clock::real().now_ms().saturating_sub(away.since_ms) / 1000;
                        tracing::warn!(seconds, "the store answers again");
                    }
                    return Some(revision);
                }
                Err(error) => {
                    let why = if error.why.is_empty() { error.message } else { error.why };
                    if self.outage.began(world::Clock::real().now_ms(), &why) {
                        tracing::warn!(why, "the store does not answer; everything waits for it, and machines go on");
                    }
                }
            }
        }
    }

    /// Takes a new table, and tells of every row that differs.
    fn replace(&self, table: Table, revision: Revision) -> Option<()> {
        let shared = self.table.upgrade()?;
        let new = Arc::new(table);
        let old = std::mem::replace(&mut *shared.write(), new.clone());
        self.seen.send_replace(revision.0);
        let gone = old.iter().filter(|row| new.get(&row.id).is_none());
        let gone = gone.map(|row| Changed { before: Some(row.clone()), after: None });
        let changed = new.iter().filter_map(|row| {
            let before = old.get(&row.id);
            let same = before.is_some_and(|before| before.version == row.version);
            (!same).then(|| Changed { before: before.cloned(), after: Some(row.clone()) })
        });
        for change in gone.chain(changed) {
            // No follower is no error: a table without a loop still answers reads.
            let _ = self.changes.send(change);
        }
        Some(())
    }

    async fn watch(&self, from: Revision) -> Result<(), store::Error> {
        let request = store::WatchRequest::prefix(keys::ROWS).from(Revision(from.0 + 1));
        let mut watcher = self.store.watch(request).await?;
        while let Some(batch) = watcher.next().await? {
            let Some(shared) = self.table.upgrade() else { return Ok(()) };
            let mut changed = Vec::with_capacity(batch.events.len());
            {
                let mut guard = shared.write();
                let table = Arc::make_mut(&mut guard);
                table.revision = batch.revision.0;
                for event in &batch.events {
                    let put = matches!(event.kind, store::EventKind::Put).then_some(&event.kv.value[..]);
                    changed.extend(table.change(&event.kv.key, put));
                }
            }
            self.seen.send_replace(batch.revision.0);
            for change in changed {
                // No follower is no error: a table without a loop still answers reads.
                let _ = self.changes.send(change);
            }
        }
        Ok(())
    }
}

impl Table {
    fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<Changed> {
        let name = String::from_utf8_lossy(key).into_owned();
        let Some(value) = value else {
            self.quarantine.remove(&name);
            let before = keys::id_of(key).and_then(|id| self.rows.remove(&id));
            return before.map(|before| Changed { before: Some(before), after: None });
        };
        match serde_json::from_slice::<Row>(value) {
            Ok(row) => {
                self.quarantine.remove(&name);
                let after = Arc::new(row);
                let before = self.rows.insert(after.id.clone(), after.clone());
                Some(Changed { before, after: Some(after) })
            }
            Err(error) => {
                tracing::error!(key = name, %error, "a row cannot be read and is quarantined; its last good form stays");
                self.quarantine.insert(name, error.to_string());
                None
            }
        }
    }
}

/// All rows as of one revision, page by page.
async fn read_all(store: &dyn Store) -> Result<(Table, Revision), Error> {
    let mut range = Range::prefix(keys::ROWS).limit(PAGE_ROWS).uncounted();
    let mut table = Table::default();
    loop {
        let page = tokio::time::timeout(PAGE_TIME_MAX, store.range(range.clone())).await;
        let page = page.unwrap_or(Err(store::Error::TimedOut)).map_err(from_store)?;
        // The first page says which revision all of them are read at.
        let at = *range.revision.get_or_insert(page.revision);
        table.revision = at.0;
        for item in &page.items {
            table.change(&item.key, Some(&item.value));
        }
        match page.items.last() {
            Some(last) if page.more => range.start = [&last.key[..], &[0]].concat().into(),
            _ => return Ok((table, at)),
        }
    }
}

/// A row and the revision at which it was last written.
#[derive(Clone, Debug)]
pub struct Stored {
    pub row: Row,
    pub key: bytes::Bytes,
    pub revision: Revision,
}

/// Reads one row by its immutable id, as it is now.
pub async fn get(store: &dyn Store, id: &Id) -> Result<Option<Stored>, Error> {
    let index = store.range(Range::key(keys::index(id))).await.map_err(from_store)?;
    let Some(entry) = index.items.into_iter().next() else { return Ok(None) };
    let found = store.range(Range::key(entry.value)).await.map_err(from_store)?;
    let Some(item) = found.items.into_iter().next() else { return Ok(None) };
    let row = serde_json::from_slice(&item.value)
        .map_err(|error| Error::internal(format!("row {id} cannot be read: {error}")).reason("row_quarantined"))?;
    Ok(Some(Stored { row, key: item.key, revision: item.mod_revision }))
}

/// One page of rows.
#[derive(Debug)]
pub struct Page {
    /// In order of id.
    pub rows: Vec<Row>,
    /// The id to ask on after, when there is more.
    pub next: Option<Id>,
    pub revision: u64,
}

/// Rows of `kind` at `scope` and below that `keep` likes, after the id `after`, at most `limit`, as they are now.
pub async fn list(
    store: &dyn Store,
    scope: &Scope,
    kind: &str,
    after: Option<&Id>,
    limit: usize,
    keep: impl Fn(&Row) -> bool,
) -> Result<Page, Error> {
    let answer = store.range(Range::prefix(keys::rows_below(scope))).await.map_err(from_store)?;
    let mut rows: Vec<Row> = Vec::new();
    for item in answer.items.iter().filter(|item| keys::kind_of(&item.key) == Some(kind)) {
        // A quarantined row is left out here and named by the doctor: one bad row must not hide the others.
        let Ok(row) = serde_json::from_slice::<Row>(&item.value) else { continue };
        if after.is_none_or(|after| row.id > *after) && keep(&row) {
            rows.push(row);
        }
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = more.then(|| rows.last().map(|row| row.id.clone())).flatten();
    Ok(Page { rows, next, revision: answer.revision.0 })
}

/// The rows that live below `row`'s own scope, as they are now; empty for kinds that open none.
pub async fn below(store: &dyn Store, row: &Row) -> Result<Table, Error> {
    if row.scope.level() == model::Level::Env {
        return Ok(Table::default());
    }
    let answer = store.range(Range::prefix(keys::rows_below(&row.inner_scope()))).await.map_err(from_store)?;
    let rows = answer.items.iter().filter_map(|item| serde_json::from_slice::<Row>(&item.value).ok());
    Ok(Table::from_rows(rows))
}

/// The reason codes of the store's own faults.
pub const STORE_UNAVAILABLE: &str = "store_unavailable";
pub const STORE_FULL: &str = "store_full";

/// What a caller is told of a fault in the store.
pub fn from_store(error: store::Error) -> Error {
    if let store::Error::DiskFull = error {
        let full = Error::new(model::Code::Unavailable, "the store's disk is full; nothing was changed");
        return full.hint("make room on the disk of the store; it goes on by itself").reason(STORE_FULL);
    }
    Error::new(model::Code::Unavailable, "the store did not answer").why(error.to_string()).reason(STORE_UNAVAILABLE)
}
