use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chainfire::member::OpenError;
use clap::Args;
use etcd::proto::etcdserverpb::{HashKvRequest, StatusRequest};
use model::Code;
use serde_json::{Value, json};

use super::facts;
use super::link::{Link, LinkArgs};
use crate::cli::session::Session;
use crate::engine::{self, Access, Place};
use crate::failure::{Failure, Outcome};
use crate::output::Column;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// At this revision; else at the newest that all of them have
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    /// Instead of members: a folder of `vt store serve`, or an embedded store
    #[arg(long, value_name = "DIR", conflicts_with_all = ["revision", "endpoints"])]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &CheckArgs) -> Outcome {
    if let Some(dir) = &args.data_dir {
        return folder(session, dir).await;
    }
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

/// Everything in a folder, read.
async fn folder(session: &Session, dir: &Path) -> Outcome {
    let sound = if dir.join(engine::EMBEDDED_FILE).exists() {
        let place = Place::Embedded(Some(dir.to_path_buf()));
        let store = engine::open(&place, &Access::default(), dir).await?;
        let sum = super::migrate::sum(&*store).await.map_err(|error| damaged(dir, &error))?;
        let status = store.status().await.map_err(|error| damaged(dir, &error))?;
        json!({
            "data_dir": dir, "engine": "embedded", "revision": status.revision.0, "compacted": status.compacted.0,
            "rows": sum.rows, "sha256": sum.hash,
        })
    } else {
        let seen = chainfire::member::verify::verify(dir).await.map_err(|error| match &error {
            OpenError::Settings(why) => Failure::new(Code::NotFound, why.clone()),
            OpenError::Store(error) => damaged(dir, error),
            other => Failure::new(Code::Failed, other.to_string()),
        })?;
        json!({
            "data_dir": dir, "engine": "member", "name": seen.identity.name,
            "id": facts::id(seen.identity.member), "cluster": facts::id(seen.identity.cluster),
            "log_first": seen.log_first, "log_next": seen.log_next, "applied": seen.applied,
            "revision": seen.revision.0, "compacted": seen.compacted.0, "hash": format!("{:08x}", seen.hash),
            "copy_bytes": seen.copy_bytes,
        })
    };
    session.out.value(&sound, || {
        let fields = sound.as_object().into_iter().flatten();
        let rows = fields.map(|(name, value)| {
            vec![format!("  {name}"), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]
        });
        format!("everything was read and is sound\n{}", crate::output::table::grid(rows.collect()))
    })?;
    Ok(0)
}

fn damaged(dir: &Path, error: &store::Error) -> Failure {
    let failure = match error {
        store::Error::Locked { .. } => Failure::new(Code::Conflict, format!("{} is being served", dir.display()))
            .hint("stop it, or ask it: vt store check --endpoints HOST:PORT"),
        _ => Failure::new(Code::Failed, format!("{} is not sound", dir.display()))
            .hint("take the member out of its cluster and add it again with an empty folder, or vt store restore FILE"),
    };
    failure.why(error.to_string())
}

fn failed(endpoint: &str, failure: &Failure) -> Value {
    let why = if failure.error.why.is_empty() { &failure.error.message } else { &failure.error.why };
    json!({ "endpoint": endpoint, "problem": why })
}
