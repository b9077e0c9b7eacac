//! All watchers of an engine share one watch of everything.
//!
//! ```text
//!   etcd ── stream ──▶ hub ──▶ feed (recent revisions) ──▶ watchers
//!     └── a stream for each page ──▶ history ──────────────▲  those who are behind
//! ```
//!
//! One watch, and not one for each watcher, because only who sees every revision knows which it has not seen: revisions
//! have no gaps, so each next one shows that nothing was lost, and how far a watcher has come needs no word of etcd's.
//! (The answer of releases before 3.4.25 and 3.5.8 to a request for progress may overtake events: etcd issue 15220.)
//! A broken stream is opened anew, at the next endpoint, from the revision after the last that was seen.

use std::sync::Arc;

use async_trait::async_trait;
use store::feed::{Feed, History, Page, narrow};
use store::limits::HISTORY_BYTES_MAX;
use store::{Batch, Error, Revision, Span, WatchRequest, Watcher};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::cluster::{Cluster, Ended, simple};
use crate::stream::{PAUSE_MAX, PAUSE_MIN, Stream};
use crate::told::Told;

/// Revisions that one stream reads for somebody who is behind: etcd tells the past in portions of 1,000 and pauses for a
/// tenth of a second before the first, so that a page should be worth some.
const PAGE_REVISIONS_MAX: usize = 4096;

pub(crate) struct Hub {
    feed: Arc<Feed>,
    history: Arc<Past>,
    task: JoinHandle<()>,
}

impl Hub {
    /// Answers once the watch stands.
    pub async fn start(cluster: Arc<Cluster>) -> Result<Self, Error> {
        let newest = cluster.newest().await.map_err(|status| simple("watch", status))?;
        let deadline = Instant::now() + cluster.client.request_time_max();
        let stream = Stream::open(&cluster, newest.next(), true, Some(deadline)).await;
        let stream = stream.map_err(|ended| ended.error("watch"))?;
        let feed = Feed::new(newest);
        let task = tokio::spawn(run(cluster.clone(), feed.clone(), stream));
        Ok(Self { feed, history: Arc::new(Past { cluster }), task })
    }

    /// `request` says where it begins, and that can be told.
    pub fn watch(&self, request: WatchRequest) -> Watcher {
        self.feed.watch(request, self.history.clone())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
        self.feed.close();
    }
}

/// Until it is aborted.
async fn run(cluster: Arc<Cluster>, feed: Arc<Feed>, stream: Stream) {
    let mut opened = Ok(stream);
    loop {
        let ended = match opened {
            Ok(stream) => follow(&cluster, &feed, stream).await,
            Err(ended) => ended,
        };
        match ended {
            // Watchers who have not seen what is gone are told so by the history.
            Ended::Compacted(compacted) => {
                warn!(%compacted, "etcd compacted revisions that were not seen yet");
                cluster.note_compacted(compacted);
                feed.skip(compacted.max(feed.newest()));
            }
            Ended::Failed(status) => {
                warn!(reason = status.message(), "the watch of etcd broke");
                sleep(if Told::by(&status) == Told::Refused { PAUSE_MAX } else { PAUSE_MIN }).await;
            }
        }
        opened = Stream::open(&cluster, feed.newest().next(), true, None).await;
    }
}

async fn follow(cluster: &Cluster, feed: &Feed, mut stream: Stream) -> Ended {
    loop {
        let batches = match stream.next().await {
            Ok(batches) => batches,
            Err(ended) => return ended,
        };
        if batches.first().is_some_and(|batch| batch.revision <= stream.past)
            && let Err(ended) = cluster.tells(feed.newest().next()).await
        {
            return ended;
        }
        for batch in batches {
            let newest = feed.newest();
            if batch.revision > newest.next() {
                feed.skip(batch.revision.before());
            }
            if batch.revision > newest {
                feed.publish(batch);
            }
        }
    }
}

struct Past {
    cluster: Arc<Cluster>,
}

#[async_trait]
impl History for Past {
    async fn read(&self, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
        // In a task of its own, so that a caller who stops in the middle leaves no stream unread. Ended with the call.
        let mut reading = JoinSet::new();
        reading.spawn(page(self.cluster.clone(), span.clone(), previous, from, to));
        match reading.join_next().await {
            Some(Ok(page)) => page,
            Some(Err(error)) => Err(Error::storage("read the past", error)),
            None => unreachable!("one task was spawned"),
        }
    }
}

/// Goes on for as long as the cluster is away: a watch is not broken by that.
async fn page(cluster: Arc<Cluster>, span: Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
    let mut reader = Reader { span, previous, to, bytes: 0, page: Page { batches: Vec::new(), next: from } };
    loop {
        match reader.read(&cluster).await {
            Ok(()) => return Ok(reader.page),
            // What was read is good; the next page tells why it ends there.
            Err(_) if reader.page.next > from => return Ok(reader.page),
            Err(ended) if ended.is_final() => return Err(ended.error("read the past")),
            Err(_) => sleep(PAUSE_MIN).await,
        }
    }
}

struct Reader {
    span: Span,
    previous: bool,
    to: Revision,
    bytes: usize,
    page: Page,
}

impl Reader {
    /// On one stream, until the page is full.
    async fn read(&mut self, cluster: &Cluster) -> Result<(), Ended> {
        let mut stream = Stream::open(cluster, self.page.next, self.previous, None).await?;
        loop {
            let batches = stream.next().await?;
            if batches.is_empty() {
                continue;
            }
            // Asked after they were told: had a compaction come between, they might not be whole.
            cluster.tells(self.page.next).await?;
            for batch in batches {
                if self.take(&batch) {
                    return Ok(());
                }
            }
        }
    }

    /// Whether the page is full.
    fn take(&mut self, batch: &Batch) -> bool {
        let Page { batches, next } = &mut self.page;
        if batch.revision > self.to {
            *next = self.to.next();
            return true;
        }
        *next = batch.revision.next();
        if let Some(seen) = narrow(batch, &self.span, self.previous) {
            self.bytes += weight(&seen);
            batches.push(seen);
        }
        *next > self.to || self.bytes >= HISTORY_BYTES_MAX || batches.len() >= PAGE_REVISIONS_MAX
    }
}

fn weight(batch: &Batch) -> usize {
    let previous = |event: &store::WatchEvent| event.previous.as_ref().map_or(0, |kv| kv.value.len());
    batch.events.iter().map(|event| event.kv.key.len() + event.kv.value.len() + previous(event)).sum()
}
