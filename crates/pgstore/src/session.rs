//! One connection, set up and checked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::poll_fn;
use parking_lot::Mutex;
use store::Revision;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, Statement};

use crate::address::Address;
use crate::error::{Failure, OpenError, told};
use crate::schema::{self, FORMAT, Identity};
use crate::tls::Tls;

/// For connecting with everything that belongs to it: names, TLS, the password, the first questions.
const SETUP_MAX: Duration = Duration::from_secs(10);

/// For an answer. A little longer than the server gives a statement, so that the server is the one to say so.
pub const ANSWER_MAX: Duration = Duration::from_secs(35);

/// Statements that one session keeps prepared; there are not so many.
const PREPARED_MAX: usize = 256;

/// Settings of every session.
///
/// The plans: every statement is a walk along an index, however little the server knows about the tables yet, and
/// planned once. The limits: a process that stops in the middle of a transaction loses the right to write before those that
/// wait for it give up.
/// Commits are durable even where the server's default says that they need not be.
const SETTINGS: &str = "\
SET statement_timeout = '30s';
SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '5s';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET default_transaction_isolation = 'read committed';
SET client_min_messages = warning;
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET enable_material = off; SET enable_sort = off; SET jit = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// Where sessions come from.
pub struct Door {
    pub address: Address,
    tls: Tls,
    /// What every session has to find.
    identity: Identity,
}

impl Door {
    /// Connects, makes or checks the schema; answers the newest revision too.
    pub async fn open(address: Address) -> Result<(Self, Revision), OpenError> {
        let tls = Tls::new(&address.ssl)?;
        let connecting = async {
            let connected = address.config.connect(tls.clone()).await;
            let (client, connection) = connected.map_err(|error| OpenError::connecting(&error))?;
            let driver = tokio::spawn(connection).abort_handle();
            let opened = schema::open(&client, &address.schema).await;
            drop(client);
            driver.abort();
            opened
        };
        let (identity, newest) = timeout(SETUP_MAX, connecting).await.map_err(|_| OpenError::TimedOut)??;
        Ok((Self { address, tls, identity }, newest))
    }

    /// Errors say that nothing can have been done through it yet.
    pub async fn session(&self) -> Result<Session, Failure> {
        let connected = timeout(SETUP_MAX, self.connect()).await;
        connected.unwrap_or_else(|_| Err(Failure::timed_out())).map_err(Failure::at_the_door)
    }

    async fn connect(&self) -> Result<Session, Failure> {
        let (client, mut connection) = self.address.config.connect(self.tls.clone()).await.map_err(|error| {
            let failure = Failure::from(error);
            // Whatever the reason, this is no answer to a request: nothing was asked.
            Failure::gone(&failure.to_string())
        })?;
        let (tell, heard) = watch::channel(0);
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notification(notification)) => {
                        let newest = notification.payload().parse().unwrap_or(u64::MAX);
                        tell.send_modify(|known| *known = newest.max(*known));
                    }
                    Ok(AsyncMessage::Notice(notice)) => tracing::debug!(%notice, "PostgreSQL says"),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = told(&error), "a connection to PostgreSQL ended");
                        break;
                    }
                }
            }
        });
        let session = Session { client, prepared: Mutex::default(), driver: driver.abort_handle(), heard };
        let schema = &self.address.schema;
        let setup = format!("{SETTINGS}SET search_path TO \"{schema}\"");
        session.client.batch_execute(&setup).await?;
        let sql = format!("SELECT pg_is_in_recovery(), format, identity FROM \"{schema}\".head");
        let found = session.client.query_opt(&sql, &[]).await?;
        let found = found.ok_or_else(|| Failure::broken("table head is empty"))?;
        if found.try_get(0)? {
            return Err(Failure::gone("the server is a standby"));
        }
        self.check(found.try_get(1)?, found.try_get(2)?)?;
        Ok(session)
    }

    /// Whether the schema is still the one that was opened.
    pub fn check(&self, format: i64, identity: &str) -> Result<(), Failure> {
        if format != FORMAT {
            let schema = &self.address.schema;
            return Err(Failure::broken(format!("schema {schema} has format {format}, this version reads {FORMAT}")));
        }
        if *identity != *self.identity.0 {
            return Err(Failure::broken("another store is in the place of the one that was opened"));
        }
        Ok(())
    }

    /// Where commits are told.
    pub fn channel(&self) -> String {
        format!("photon.{}", self.address.schema)
    }
}

/// Dropping it ends the connection, and undoes a transaction that is under way.
pub struct Session {
    client: Client,
    prepared: Mutex<HashMap<String, Statement>>,
    driver: AbortHandle,
    /// The newest revision that a notification told; its sender is gone once the connection is.
    pub heard: watch::Receiver<u64>,
}

impl Session {
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Prepared once; may need a round trip.
    pub async fn prepared(&self, sql: &str) -> Result<Statement, Failure> {
        if let Some(statement) = self.prepared.lock().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        let mut prepared = self.prepared.lock();
        assert!(prepared.len() < PREPARED_MAX, "the texts of statements are few and fixed");
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Sent when first polled, so that several polled together travel together, in that order.
    pub async fn query(&self, statement: &Statement, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        Ok(self.client.query(statement, parameters).await?)
    }

    /// As [`Session::query`]; answers the rows that were changed.
    pub async fn execute(&self, statement: &Statement, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, Failure> {
        Ok(self.client.execute(statement, parameters).await?)
    }

    /// As [`Session::query`], for what needs no preparing.
    pub async fn run(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Prepares and asks, within [`ANSWER_MAX`].
    pub async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let asking = async {
            let statement = self.prepared(sql).await?;
            self.query(&statement, parameters).await
        };
        timeout(ANSWER_MAX, asking).await.map_err(|_| Failure::timed_out())?
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A session that several use at once; each sends statements that are whole by themselves.
pub type Shared = Arc<Session>;

/// How long to wait before connecting again: not at all at first, then longer and longer.
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    pub fn new() -> Self {
        Self { next: Duration::ZERO }
    }

    pub async fn wait(&self) {
        if !self.next.is_zero() {
            tokio::time::sleep(self.next).await;
        }
    }

    pub fn failed(&mut self) {
        self.next = (self.next * 2).clamp(Self::FIRST, Self::MAX);
    }
}
