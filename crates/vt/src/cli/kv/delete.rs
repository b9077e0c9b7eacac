use clap::Args;
use etcd::proto::etcdserverpb::DeleteRangeRequest;
use model::Code;
use serde_json::{Value, json};

use super::show;
use super::stretch::StretchArgs;
use crate::cli::session::Session;
use crate::cli::store::link::{Link, LinkArgs};
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    stretch: StretchArgs,
    /// Show what was removed
    #[arg(long)]
    previous: bool,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &DeleteArgs) -> Outcome {
    let stretch = args.stretch.read()?;
    let link = Link::open(&args.link).await?;
    let ask = DeleteRangeRequest { key: stretch.key.clone(), range_end: stretch.end.clone(), prev_kv: args.previous };
    let answer = link
        .change(|member| {
            let ask = ask.clone();
            async move { member.kv().delete_range(ask).await }
        })
        .await?;
    if answer.deleted == 0 && stretch.one() {
        return Err(Failure::new(Code::NotFound, format!("key {} does not exist", stretch.said()))
            .hint("vt kv get --prefix '' --keys-only   lists all"));
    }
    let revision = answer.header.as_ref().map(|header| header.revision);
    let previous: Vec<Value> = answer.prev_kvs.iter().map(show::row).collect();
    let mut receipt = json!({
        "operation": "delete", "keys": stretch.said(), "deleted": answer.deleted, "revision": revision,
    });
    if args.previous {
        receipt["previous"] = json!(previous);
    }
    session.out.value(&receipt, || {
        let mut text = format!(
            "deleted {}\n  keys      {}\n  revision  {}\n",
            stretch.said(),
            answer.deleted,
            revision.unwrap_or_default()
        );
        if args.previous {
            text += &crate::output::table::render(&previous, &show::columns(), session.out.now_ms);
        }
        text
    })?;
    Ok(0)
}
