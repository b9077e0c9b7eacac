//! Sessions for reading. Every read is one statement and so one snapshot, and many travel on one session at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use store::Error;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::{Failure, Kind};
use crate::session::{Door, Shared};

/// Sessions; the server works on one statement of each at a time.
const SESSIONS: usize = 4;

/// Reads under way; further ones wait for a place.
const READS_MAX: usize = 256;

/// For a place.
const PLACE_MAX: Duration = Duration::from_secs(10);

/// An attempt to connect that failed speaks for all that waited for it and for this long.
const FAILED_FOR: Duration = Duration::from_millis(100);

/// A read changes nothing, so it is asked for again when its session is lost, or the next one while it is being made:
/// at once, and then after each of these. A server that fails over may end several in a row.
const AGAIN_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

pub struct Pool {
    door: Arc<Door>,
    slots: [Mutex<Slot>; SESSIONS],
    turn: AtomicUsize,
    places: Semaphore,
}

#[derive(Default)]
struct Slot {
    session: Option<Shared>,
    failed: Option<(Instant, Failure)>,
}

impl Pool {
    pub fn new(door: Arc<Door>) -> Self {
        let slots = std::array::from_fn(|_| Mutex::default());
        Self { door, slots, turn: AtomicUsize::new(0), places: Semaphore::new(READS_MAX) }
    }

    /// Asks one reading statement.
    pub async fn ask(
        &self,
        act: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let place = timeout(PLACE_MAX, self.places.acquire()).await.map_err(|_| Error::Overloaded)?;
        let _place = place.map_err(|_| Error::Closed)?;
        let slot = &self.slots[self.turn.fetch_add(1, Ordering::Relaxed) % SESSIONS];
        let mut again_after = AGAIN_AFTER.into_iter();
        loop {
            let failure = match self.attempt(slot, sql, parameters).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            match again_after.next() {
                Some(pause) if failure.kind == Kind::Gone => tokio::time::sleep(pause).await,
                _ => return Err(failure.reading(act)),
            }
        }
    }

    async fn attempt(
        &self,
        slot: &Mutex<Slot>,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let session = self.session(slot).await?;
        let failure = match session.ask(sql, parameters).await {
            Ok(rows) => return Ok(rows),
            Err(failure) => failure,
        };
        if !failure.spares_session() {
            let slot = &mut *slot.lock().await;
            slot.session.take_if(|held| Arc::ptr_eq(held, &session));
        }
        Err(failure)
    }

    async fn session(&self, slot: &Mutex<Slot>) -> Result<Shared, Failure> {
        let slot = &mut *slot.lock().await;
        if let Some(session) = slot.session.as_ref().filter(|session| !session.is_closed()) {
            return Ok(session.clone());
        }
        if let Some((at, failure)) = &slot.failed
            && at.elapsed() < FAILED_FOR
        {
            return Err(failure.clone());
        }
        match self.door.session().await {
            Ok(session) => Ok(slot.session.insert(Arc::new(session)).clone()),
            Err(failure) => {
                slot.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}
