//! The host of a store that has one member: this process. Also of a tenant's key space, which is a store of its own.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::{Compare, Error, Key, KeyValue, Op, Range, Revision, Store, Txn, TxnAnswer};
use tokio::sync::{RwLock, mpsc};

use super::host::{
    HashAnswer, Header, Host, HostStatus, MemberChange, MemberError, MemberFact, SnapshotPieces, System,
};
use super::{Handle, Options};
use crate::command::Refusal;
use crate::member::types::{Contact, MemberId};

/// There are no elections: one term for all time.
const TERM: u64 = 1;

/// Rows that are read at once for a hash or a snapshot.
const PAGE_ROWS: usize = 1000;

/// Pieces of a snapshot that wait for a slow client.
const PIECES_MAX: usize = 4;

/// A piece of a snapshot is sent once it is this long.
const PIECE_BYTES: usize = 256 * 1024;

/// What a snapshot of a solo store begins with. After it, each row is its length as u32, big endian, and the row in
/// postcard.
pub const SNAPSHOT_MAGIC: &[u8] = b"chainfire rows 1\n";

const VERSION: u8 = 1;

#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: MemberId,
    pub contact: Contact,
}

/// Where system rows are kept: under one key of a store that the clients of this one do not see.
struct Keeper {
    store: Arc<dyn Store>,
    key: Key,
}

pub struct Solo {
    store: Arc<dyn Store>,
    identity: Mutex<Identity>,
    system: Mutex<Arc<System>>,
    keeper: Option<Keeper>,
    /// Shared by transactions, exclusive for changes of system rows: a guard holds until its transaction is done.
    gate: RwLock<()>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u64,
    rows: Vec<(Bytes, Bytes)>,
}

impl Solo {
    /// System rows are kept in memory and gone with it.
    pub fn new(store: Arc<dyn Store>, identity: Identity) -> Self {
        Self { store, identity: Mutex::new(identity), system: Mutex::default(), keeper: None, gate: RwLock::default() }
    }

    /// System rows are kept in `keeper` under `key`, which no client of `store` may reach.
    pub async fn open(
        store: Arc<dyn Store>,
        identity: Identity,
        keeper: Arc<dyn Store>,
        key: Key,
    ) -> Result<Self, Error> {
        let kept = keeper.range(Range::key(key.clone())).await?;
        let system = match kept.first() {
            None => System::default(),
            Some(kv) => decode(&kv.value).ok_or_else(|| Error::Corrupt {
                path: key.escape_ascii().to_string().into(),
                reason: "the system rows are unreadable".into(),
            })?,
        };
        let keeper = Some(Keeper { store: keeper, key });
        Ok(Self { system: Mutex::new(Arc::new(system)), keeper, ..Self::new(store, identity) })
    }

    fn fact(&self) -> MemberFact {
        let identity = self.identity.lock();
        MemberFact { id: identity.member_id, contact: identity.contact.clone(), learner: false }
    }
}

/// Every row as of one revision, in key order, page after page.
struct Pages {
    store: Arc<dyn Store>,
    range: Range,
    done: bool,
}

impl Pages {
    fn new(store: Arc<dyn Store>, revision: Option<Revision>) -> Self {
        let mut range = Range::all().limit(PAGE_ROWS).uncounted();
        range.revision = revision;
        Self { store, range, done: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        if self.done {
            return Ok(None);
        }
        let page = self.store.range(self.range.clone()).await?;
        self.range.revision.get_or_insert(page.revision);
        match page.items.last() {
            Some(last) => self.range.start = Bytes::from([&last.key[..], &[0]].concat()),
            None => self.done = true,
        }
        self.done |= !page.more;
        Ok(Some(page.items))
    }
}

fn encode(system: &System) -> Bytes {
    let rows = system.rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
    let kept = Kept { version: system.version, rows };
    let bytes = postcard::to_extend(&kept, vec![VERSION]).expect("plain data in memory always encodes");
    Bytes::from(bytes)
}

fn decode(bytes: &[u8]) -> Option<System> {
    let (&VERSION, kept) = bytes.split_first()? else { return None };
    let Kept { version, rows } = postcard::from_bytes(kept).ok()?;
    Some(System { version, rows: rows.into_iter().collect() })
}

fn frame(kv: &KeyValue) -> Vec<u8> {
    postcard::to_stdvec(kv).expect("plain data in memory always encodes")
}

#[async_trait]
impl Host for Solo {
    fn header(&self) -> Header {
        let identity = self.identity.lock();
        Header { cluster_id: identity.cluster_id, member_id: identity.member_id, term: TERM }
    }

    async fn status(&self) -> Result<HostStatus, Error> {
        let status = self.store.status().await?;
        Ok(HostStatus {
            leader: Some(self.header().member_id),
            term: TERM,
            log_index: status.revision.0,
            applied_index: status.revision.0,
            learner: false,
            db_bytes: status.db_bytes,
            db_bytes_used: status.db_bytes,
            problems: Vec::new(),
        })
    }

    async fn members(&self, _serializable: bool) -> Result<Vec<MemberFact>, Error> {
        Ok(vec![self.fact()])
    }

    async fn change(&self, change: MemberChange) -> Result<Vec<MemberFact>, MemberError> {
        let own = self.header().member_id;
        match change {
            MemberChange::Add { .. } => Err(MemberError::Alone),
            MemberChange::Remove(id) if id == own => Err(MemberError::Unhealthy),
            MemberChange::Promote(id) if id == own => Err(MemberError::NotLearner(id)),
            MemberChange::Update { id, peer_urls } if id == own => {
                self.identity.lock().contact.peer_urls = peer_urls;
                Ok(vec![self.fact()])
            }
            MemberChange::Remove(id) | MemberChange::Promote(id) | MemberChange::Update { id, .. } => {
                Err(MemberError::NotFound(id))
            }
        }
    }

    async fn transfer(&self, to: MemberId) -> Result<(), MemberError> {
        if to == self.header().member_id { Ok(()) } else { Err(MemberError::BadTransferee(to)) }
    }

    fn system(&self) -> Arc<System> {
        self.system.lock().clone()
    }

    async fn system_change(&self, expected: u64, rows: Vec<(Bytes, Option<Bytes>)>) -> Result<u64, Refusal> {
        let _alone = self.gate.write().await;
        let old = self.system();
        if old.version != expected {
            return Err(Refusal::SystemMoved { version: old.version });
        }
        let mut new = System { version: old.version + 1, rows: old.rows.clone() };
        for (key, row) in rows {
            match row {
                Some(row) => new.rows.insert(key, row),
                None => new.rows.remove(&key),
            };
        }
        if let Some(Keeper { store, key }) = &self.keeper {
            let unchanged = if old.version == 0 {
                Compare::missing(key.clone())
            } else {
                Compare::value_is(key.clone(), encode(&old))
            };
            let txn = Txn::when([unchanged]).then([Op::put(key.clone(), encode(&new))]);
            let answer = store.txn(txn).await.map_err(Refusal::Store)?;
            if !answer.succeeded {
                // Somebody else writes the row: another process on the same store.
                let error = std::io::Error::other("another process changed the system rows");
                return Err(Refusal::Store(Error::storage("keep the system rows", error)));
            }
        }
        let version = new.version;
        *self.system.lock() = Arc::new(new);
        Ok(version)
    }

    async fn guarded(&self, txn: Txn, guard: u64) -> Result<TxnAnswer, Refusal> {
        let _shared = self.gate.read().await;
        let version = self.system.lock().version;
        if version != guard {
            return Err(Refusal::SystemMoved { version });
        }
        self.store.txn(txn).await.map_err(Refusal::Store)
    }

    /// Over rows; the history behind them is the store's own affair.
    async fn hash(&self, revision: Option<Revision>) -> Result<HashAnswer, Error> {
        let mut crc = flate2::Crc::new();
        let mut pages = Pages::new(self.store.clone(), revision);
        while let Some(page) = pages.next().await? {
            for kv in &page {
                crc.update(&frame(kv));
            }
        }
        let status = self.store.status().await?;
        let revision = pages.range.revision.unwrap_or(status.revision);
        Ok(HashAnswer { hash: crc.sum(), revision, compacted: status.compacted })
    }

    async fn snapshot(&self) -> Result<SnapshotPieces, Error> {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let pages = Pages::new(self.store.clone(), None);
        tokio::spawn(async move {
            // A client that has gone needs no last piece.
            if let Err(error) = send(pages, &pieces).await {
                let _ = pieces.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }
}

async fn send(mut pages: Pages, pieces: &mpsc::Sender<Result<Bytes, Error>>) -> Result<(), Error> {
    let mut left = BytesMut::from(SNAPSHOT_MAGIC);
    while let Some(page) = pages.next().await? {
        for kv in &page {
            let row = frame(kv);
            left.put_u32(row.len() as u32);
            left.extend_from_slice(&row);
            while left.len() >= PIECE_BYTES {
                let piece = left.split_to(PIECE_BYTES).freeze();
                pieces.send(Ok(piece)).await.map_err(|_| Error::Closed)?;
            }
        }
    }
    pieces.send(Ok(left.freeze())).await.map_err(|_| Error::Closed)
}

/// A door before `store` and a host of its own, whose system rows are gone with it.
pub async fn serve(options: Options, store: Arc<dyn Store>) -> Result<Handle, super::Error> {
    let contact = Contact { name: "solo".into(), peer_urls: Vec::new(), client_urls: options.listen.clone() };
    let identity = Identity { cluster_id: world::random::number(), member_id: world::random::number(), contact };
    let host = Arc::new(Solo::new(store.clone(), identity));
    super::serve(options, store, host).await
}
