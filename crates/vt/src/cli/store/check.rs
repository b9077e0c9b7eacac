use std::collections::BTreeSet;

use clap::Args;
use etcd::proto::etcdserverpb::{HashKvRequest, StatusRequest};
use model::Code;
use serde_json::{Value, json};

use super::facts;
use super::link::{Link, LinkArgs};
use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};
use crate::output::Column;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// At this revision; else at the newest that all of them have
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &CheckArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let mut items = Vec::new();
    let mut members = Vec::new();
    for (endpoint, member) in link.client.connections() {
        match link.one(member.maintenance().status(StatusRequest {})).await {
            Ok(status) => members.push((endpoint, member, status.header.map_or(0, |header| header.revision))),
            Err(failure) => items.push(failed(endpoint, &failure)),
        }
    }
    let Some(common) = members.iter().map(|(.., newest)| *newest).min() else {
        return Err(Failure::new(Code::Unavailable, "no member of the store answers").hint("vt store status"));
    };
    let revision = args.revision.unwrap_or(common);
    for (endpoint, member, _) in members {
        items.push(match link.one(member.maintenance().hash_kv(HashKvRequest { revision })).await {
            Ok(answer) => json!({
                "endpoint": endpoint,
                "id": facts::id(answer.header.as_ref().map_or(0, |header| header.member_id)),
                "revision": revision,
                "compacted": answer.compact_revision,
                "hash": format!("{:08x}", answer.hash),
                "problem": null,
            }),
            Err(failure) => failed(endpoint, &failure),
        });
    }
    let columns = [
        ("ENDPOINT", "/endpoint"),
        ("ID", "/id"),
        ("REVISION", "/revision"),
        ("COMPACTED", "/compacted"),
        ("HASH", "/hash"),
        ("PROBLEM", "/problem"),
    ];
    session.out.list(&items, &Value::Null, &columns.map(|(title, pointer)| Column::new(title, pointer)))?;
    if items.iter().any(|item| !item["problem"].is_null()) {
        return Ok(1);
    }
    // Two that have given up history up to different points hash different history.
    let compacted: BTreeSet<Option<i64>> = items.iter().map(|item| item["compacted"].as_i64()).collect();
    let hashes: BTreeSet<Option<&str>> = items.iter().map(|item| item["hash"].as_str()).collect();
    if hashes.len() == 1 {
        return Ok(0);
    }
    if compacted.len() > 1 {
        return Err(Failure::new(Code::Unavailable, "the members are compacted to different revisions at the moment")
            .hint("ask again in a moment"));
    }
    Err(Failure::new(Code::Failed, format!("the members differ at revision {revision}"))
        .why("equal histories have equal hashes")
        .hint("take the one that differs out: vt store remove NAME, then add it again with an empty --data-dir"))
}

fn failed(endpoint: &str, failure: &Failure) -> Value {
    let why = if failure.error.why.is_empty() { &failure.error.message } else { &failure.error.why };
    json!({ "endpoint": endpoint, "problem": why })
}
