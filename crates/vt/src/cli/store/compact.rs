use bytes::Bytes;
use clap::Args;
use etcd::proto::etcdserverpb::{CompactionRequest, RangeRequest};
use model::Code;
use serde_json::json;

use super::link::{Link, LinkArgs};
use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub struct CompactArgs {
    /// The history before this revision goes; what is there at it stays
    #[arg(value_name = "REVISION", required_unless_present = "keep", conflicts_with = "keep",
          value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    /// Instead: so many of the newest revisions stay
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    keep: Option<i64>,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &CompactArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let newest = newest(&link).await?;
    let revision = match (args.revision, args.keep) {
        (Some(revision), _) => revision,
        (None, keep) => newest - keep.unwrap_or(0),
    };
    if revision < 1 {
        return Err(Failure::new(
            Code::PreconditionFailed,
            format!("there are {newest} revisions, and all are to stay"),
        ));
    }
    link.change(|member| async move { member.kv().compact(CompactionRequest { revision, physical: false }).await })
        .await?;
    let receipt =
        json!({ "operation": "compact", "revision": revision, "newest": newest, "next": ["vt store status"] });
    session.out.value(&receipt, || {
        format!(
            "compacted\n  revision  {revision}; the newest is {newest}\n  next      vt store status   shows the size\n"
        )
    })?;
    Ok(0)
}

/// Of the store, not of the member that is asked.
async fn newest(link: &Link) -> Result<i64, Failure> {
    let ask = RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..RangeRequest::default() };
    let answer = link.read(|member| {
        let ask = ask.clone();
        async move { member.kv().range(ask).await }
    });
    Ok(answer.await?.header.map_or(0, |header| header.revision))
}
