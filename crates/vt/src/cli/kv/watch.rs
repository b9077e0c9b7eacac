use std::time::Duration;

use clap::Args;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use model::Code;
use tonic::{Status, Streaming};

use super::show;
use super::stretch::{Stretch, StretchArgs};
use crate::cli::session::Session;
use crate::cli::store::link::{Link, LinkArgs};
use crate::cli::store::told::told;
use crate::failure::{EXIT_INTERRUPTED, Failure, Outcome};

/// Between two attempts to find a member again.
const AGAIN_PAUSE: Duration = Duration::from_millis(500);
/// A watch sends one request and then listens.
const REQUESTS_MAX: usize = 1;

#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    stretch: StretchArgs,
    /// Begin with the changes of this revision; without it, with what comes
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    /// Show what was there before each change
    #[arg(long)]
    previous: bool,
    /// End after so many changes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    link: LinkArgs,
}

/// Where a watch is.
struct Place {
    /// The first revision that was not shown yet; 0: what comes.
    from: i64,
    shown: u64,
}

/// Why a watch stopped.
enum End {
    /// As many as were asked for.
    Enough,
    /// The member is gone, or lost its leader: another may go on.
    Lost(String),
}

pub async fn run(session: &Session, args: &WatchArgs) -> Outcome {
    let stretch = args.stretch.read()?;
    let mut link = Link::open(&args.link).await?;
    let mut place = Place { from: args.revision.unwrap_or(0), shown: 0 };
    let watching = async {
        loop {
            match follow(session, args, &link, &stretch, &mut place).await? {
                End::Enough => return Ok(0),
                End::Lost(why) => session.out.note(format!("the watch is begun again: {why}")),
            }
            // A store that was never there is an error; one that went away is waited for.
            link = loop {
                tokio::time::sleep(AGAIN_PAUSE).await;
                match Link::open(&args.link).await {
                    Ok(link) => break link,
                    Err(failure) if failure.error.code.retryable() => {}
                    Err(failure) => return Err(failure),
                }
            };
        }
    };
    tokio::select! {
        outcome = watching => outcome,
        _ = tokio::signal::ctrl_c() => Ok(EXIT_INTERRUPTED),
    }
}

async fn follow(
    session: &Session,
    args: &WatchArgs,
    link: &Link,
    stretch: &Stretch,
    place: &mut Place,
) -> Result<End, Failure> {
    let create = WatchCreateRequest {
        key: stretch.key.clone(),
        range_end: stretch.end.clone(),
        start_revision: place.from,
        prev_kv: args.previous,
        // So that a quiet watch, too, knows where it is when it has to begin again.
        progress_notify: true,
        ..WatchCreateRequest::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(REQUESTS_MAX);
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    sender.try_send(request).map_err(|_| Failure::new(Code::Internal, "the watch could not be asked for"))?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers: Streaming<WatchResponse> = match link.client.watch().watch(requests).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return lost(&status),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(End::Lost("the member ended it".to_owned())),
            Err(status) => return lost(&status),
        };
        let newest = answer.header.as_ref().map_or(0, |header| header.revision);
        if answer.compact_revision > 0 {
            let compacted = answer.compact_revision;
            return Err(Failure::new(
                Code::PreconditionFailed,
                format!("the history before revision {compacted} has been compacted"),
            )
            .hint(format!("vt kv get   shows what is there; --revision {compacted}   begins at the oldest there is")));
        }
        if answer.canceled && answer.cancel_reason.contains("no leader") {
            return Ok(End::Lost(answer.cancel_reason));
        }
        if answer.canceled {
            return Err(Failure::new(Code::Failed, "the store ended the watch").why(answer.cancel_reason));
        }
        for event in &answer.events {
            session.out.item(&show::event(event), || show::line(event))?;
            place.shown += 1;
            if args.limit.is_some_and(|limit| place.shown >= limit) {
                return Ok(End::Enough);
            }
        }
        match answer.events.last().and_then(|event| event.kv.as_ref()) {
            Some(last) => place.from = last.mod_revision + 1,
            // The watch is there, or has everything up to here.
            None if answer.created && place.from > 0 => {}
            None => place.from = place.from.max(newest + 1),
        }
    }
}

/// Whether another member may go on, or the watch was refused.
fn lost(status: &Status) -> Result<End, Failure> {
    let failure = told(status);
    let broken = matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled);
    if broken || failure.error.code.retryable() { Ok(End::Lost(status.message().to_owned())) } else { Err(failure) }
}
