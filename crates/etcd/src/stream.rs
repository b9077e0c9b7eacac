//! One watch of everything, on one stream.

use std::time::Duration;

use store::{Batch, Revision};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::cluster::{Cluster, Ended};
use crate::proto::etcdserverpb::{WatchRequest, WatchResponse};
use crate::told::Told;
use crate::wire::event::Whole;
use crate::wire::{answer, ask};

/// Between attempts to open it.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(50);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A stream that says nothing for so long is asked how far it has come, and left when it does not answer for as long
/// again: a member may be reachable and still serve nothing.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Requests that wait to be sent: one creation, one question.
const REQUESTS_MAX: usize = 4;

pub(crate) struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    whole: Whole,
    /// The newest revision when it began: up to there it tells the past.
    pub past: Revision,
}

impl Stream {
    /// Tries until it stands, at one endpoint after the other, but not beyond `deadline`. [`Ended::Failed`] before that
    /// is the cluster's refusal.
    pub async fn open(
        cluster: &Cluster,
        from: Revision,
        previous: bool,
        deadline: Option<Instant>,
    ) -> Result<Self, Ended> {
        let client = &cluster.client;
        let mut pause = PAUSE_MIN;
        let mut sign_in = client.has_login();
        loop {
            let at = client.current();
            let connection = client.connection_to(at);
            let opening = Self::open_at(cluster, connection.watch(), from, previous);
            let status = match timeout(client.request_time_max(), opening).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(Ended::Compacted(compacted))) => return Err(Ended::Compacted(compacted)),
                Ok(Err(Ended::Failed(status))) => status,
                Err(_) => Status::deadline_exceeded("no watch within the time for a request"),
            };
            match Told::by(&status) {
                // A watch with an old token is told that it has no permission.
                Told::Token | Told::Refused if sign_in => {
                    sign_in = false;
                    client.sign_in(Some(&connection)).await.map_err(Ended::Failed)?;
                    continue;
                }
                Told::Token | Told::Refused => return Err(Ended::Failed(status)),
                Told::Unreachable | Told::Broken | Told::NoLeader | Told::TimedOut => client.leave(at),
            }
            if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                return Err(Ended::Failed(status));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn open_at(
        cluster: &Cluster,
        mut stub: crate::proto::etcdserverpb::watch_client::WatchClient<crate::Stamped>,
        from: Revision,
        previous: bool,
    ) -> Result<Self, Ended> {
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        // Before the call: etcd says nothing, not even that it listens, until it was asked something.
        let _ = requests.try_send(ask::watch(from, previous));
        let answers = stub.watch(ReceiverStream::new(waiting)).await.map_err(Ended::Failed)?.into_inner();
        let mut stream = Self { requests, answers, whole: Whole::default(), past: Revision::ZERO };
        let created = stream.answer().await?;
        stream.past = cluster.header(created.header.as_ref()).map_err(Ended::Failed)?;
        if !created.created {
            return Err(Ended::Failed(Status::internal("a watch that was not created answers")));
        }
        Ok(stream)
    }

    /// The next whole revisions, in order; may be none. Not cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Batch>, Ended> {
        let answer = match timeout(SILENCE_MAX, self.answer()).await {
            Ok(answer) => answer?,
            Err(_) => {
                let _ = self.requests.try_send(ask::progress());
                let silent = |_| Ended::Failed(Status::unavailable("the stream is silent"));
                timeout(SILENCE_MAX, self.answer()).await.map_err(silent)??
            }
        };
        Ok(self.whole.take(answer.events, answer.fragment))
    }

    /// Cancel safe.
    async fn answer(&mut self) -> Result<WatchResponse, Ended> {
        let answer = self.answers.message().await.map_err(Ended::Failed)?;
        let answer = answer.ok_or_else(|| Ended::Failed(Status::unavailable("the stream ended")))?;
        if !answer.canceled {
            return Ok(answer);
        }
        if answer.compact_revision > 0 {
            return Err(Ended::Compacted(answer::revision(answer.compact_revision)));
        }
        Err(Ended::Failed(Status::unknown(answer.cancel_reason)))
    }
}
