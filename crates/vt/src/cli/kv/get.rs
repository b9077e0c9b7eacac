use bytes::Bytes;
use clap::{Args, ValueEnum};
use etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd::proto::etcdserverpb::{RangeRequest, RangeResponse};
use model::Code;
use serde_json::{Value, json};

use super::show;
use super::stretch::StretchArgs;
use crate::cli::session::Session;
use crate::cli::store::link::{Link, LinkArgs};
use crate::failure::{Failure, Outcome};

/// Rows that are asked for at once.
const PAGE_ROWS: i64 = 1000;

#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    stretch: StretchArgs,
    /// As of this revision
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    /// Rows at most
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// In the order of this instead of the key
    #[arg(long, value_enum, value_name = "WHAT")]
    sort_by: Option<By>,
    /// The other way round
    #[arg(long)]
    descending: bool,
    /// Leave values out
    #[arg(long)]
    keys_only: bool,
    /// Say how many there are, and no more
    #[arg(long, conflicts_with_all = ["keys_only", "limit", "sort_by", "descending"])]
    count_only: bool,
    /// The values alone, as they are, each with a newline unless it is the only one
    #[arg(long, conflicts_with_all = ["keys_only", "count_only", "format", "json"])]
    value_only: bool,
    /// What the member asked has, which may be behind the others; answers without a leader
    #[arg(long)]
    serializable: bool,
    #[command(flatten)]
    link: LinkArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

impl By {
    const fn target(self) -> SortTarget {
        match self {
            By::Key => SortTarget::Key,
            By::Version => SortTarget::Version,
            By::Create => SortTarget::Create,
            By::Mod => SortTarget::Mod,
            By::Value => SortTarget::Value,
        }
    }
}

pub async fn run(session: &Session, args: &GetArgs) -> Outcome {
    let stretch = args.stretch.read()?;
    let sorted = args.sort_by.is_some() || args.descending;
    let order = match (sorted, args.descending) {
        (false, _) => SortOrder::None,
        (true, false) => SortOrder::Ascend,
        (true, true) => SortOrder::Descend,
    };
    let ask = RangeRequest {
        key: stretch.key.clone(),
        range_end: stretch.end.clone(),
        limit: args.limit.unwrap_or(0),
        revision: args.revision.unwrap_or(0),
        sort_order: order as i32,
        sort_target: args.sort_by.unwrap_or(By::Key).target() as i32,
        serializable: args.serializable,
        keys_only: args.keys_only,
        count_only: args.count_only,
        ..RangeRequest::default()
    };
    let link = Link::open(&args.link).await?;
    if args.count_only {
        let answer = range(&link, ask).await?;
        let revision = answer.header.as_ref().map(|header| header.revision);
        session.out.value(&json!({ "count": answer.count, "revision": revision }), || format!("{}\n", answer.count))?;
        return Ok(0);
    }
    let paged = !stretch.one() && !sorted && args.limit.is_none();
    let kvs = if paged { pages(&link, ask).await? } else { range(&link, ask).await?.kvs };
    if kvs.is_empty() && stretch.one() {
        return Err(Failure::new(Code::NotFound, format!("key {} does not exist", stretch.said()))
            .hint("vt kv get --prefix '' --keys-only   lists all"));
    }
    if args.value_only {
        let alone = kvs.len() == 1;
        for kv in &kvs {
            crate::output::write_bytes(&kv.value)?;
            if !alone {
                crate::output::write_bytes(b"\n")?;
            }
        }
        return Ok(0);
    }
    let items: Vec<Value> = kvs.iter().map(show::row).collect();
    session.out.list(&items, &Value::Null, &show::columns())?;
    Ok(0)
}

async fn range(link: &Link, ask: RangeRequest) -> Result<RangeResponse, Failure> {
    link.read(|member| {
        let ask = ask.clone();
        // What a member has by itself it has without a leader.
        let member = if ask.serializable { member.leaderless() } else { member };
        async move { member.kv().range(ask).await }
    })
    .await
}

/// All rows as of one revision, page by page, so that no answer is too large.
async fn pages(link: &Link, mut ask: RangeRequest) -> Result<Vec<etcd::proto::mvccpb::KeyValue>, Failure> {
    ask.limit = PAGE_ROWS;
    let mut all = Vec::new();
    loop {
        let RangeResponse { header, kvs, more, .. } = range(link, ask.clone()).await?;
        if ask.revision == 0 {
            ask.revision = header.map_or(0, |header| header.revision);
        }
        all.extend(kvs);
        match all.last() {
            Some(last) if more => ask.key = Bytes::from([&last.key[..], &[0]].concat()),
            _ => return Ok(all),
        }
    }
}
