//! One call, as often as it is safe, at one endpoint after the other.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Response, Status};

use crate::told::Told;
use crate::{Client, Connection};

/// Between rounds over all endpoints: long enough not to hammer a cluster that is coming up.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// With a second endpoint, one that is silent gets so much of the time for a request.
const SILENCE_SHARE: u32 = 3;

/// When a call that failed may be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// It changes nothing, or the same when made twice.
    Always,
    /// Only when it is certain that nothing happened.
    Untouched,
}

impl Client {
    /// Makes the call until it is answered: again at the next endpoint when the one in use fails, as far as `repeat`
    /// allows, and with a new token when the old one is refused. What is done has its end at
    /// [`crate::Options::request_time_max`]; the last failure is told then.
    pub async fn call<A, F>(&self, repeat: Repeat, act: impl Fn(Connection) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.attempts(repeat, self.has_login(), act).await
    }

    /// `sign_in`: a refused token is worth a new one.
    pub(crate) async fn attempts<A, F>(
        &self,
        repeat: Repeat,
        mut sign_in: bool,
        act: impl Fn(Connection) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.request_time_max();
        let mut pause = PAUSE_MIN;
        let mut attempts = 0;
        loop {
            let at = self.current();
            let connection = self.connection_to(at);
            let status = match timeout_at(self.patience(repeat, deadline), act(connection.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer within the time for a request"),
            };
            let told = Told::by(&status);
            if told == Told::Token && sign_in {
                sign_in = false;
                Box::pin(self.sign_in(Some(&connection))).await?;
                continue;
            }
            if matches!(told, Told::Refused | Told::Token) {
                return Err(status);
            }
            self.leave(at);
            let certain = matches!(told, Told::Unreachable | Told::NoLeader);
            if repeat == Repeat::Untouched && !certain {
                return Err(status);
            }
            attempts += 1;
            if attempts % self.endpoints() == 0 {
                if Instant::now() + pause >= deadline {
                    return Err(status);
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            } else if Instant::now() >= deadline {
                return Err(status);
            }
        }
    }

    /// Until when one attempt may take.
    fn patience(&self, repeat: Repeat, deadline: Instant) -> Instant {
        match repeat {
            Repeat::Always if self.endpoints() > 1 => {
                deadline.min(Instant::now() + self.request_time_max() / SILENCE_SHARE)
            }
            Repeat::Always | Repeat::Untouched => deadline,
        }
    }
}
