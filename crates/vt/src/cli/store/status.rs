use clap::Args;
use etcd::Connection;
use etcd::proto::etcdserverpb::{MemberListRequest, StatusRequest};
use serde_json::{Value, json};

use super::facts;
use super::link::{Link, LinkArgs};
use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};
use crate::output::Column;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &StatusArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let asked = link.client.connections().map(async |(endpoint, member)| look(&link, endpoint, &member).await);
    let items = futures::future::join_all(asked).await;
    let columns = [
        ("ENDPOINT", "/endpoint"),
        ("NAME", "/name"),
        ("ID", "/id"),
        ("LEADER", "/leader"),
        ("VOTER", "/voter"),
        ("REVISION", "/revision"),
        ("TERM", "/term"),
        ("APPLIED", "/applied_index"),
        ("SIZE", "/size_bytes"),
        ("VERSION", "/version"),
        ("PROBLEMS", "/problems"),
    ];
    session.out.list(&items, &Value::Null, &columns.map(|(title, pointer)| Column::new(title, pointer)))?;
    let well = items.iter().all(|item| item["problems"].as_array().is_some_and(Vec::is_empty));
    Ok(u8::from(!well))
}

async fn look(link: &Link, endpoint: &str, member: &Connection) -> Value {
    let status = match link.one(member.maintenance().status(StatusRequest {})).await {
        Ok(status) => status,
        Err(failure) => return gone(endpoint, &failure),
    };
    let header = status.header.unwrap_or_default();
    // As far as it knows them itself: a member that is cut off answers, too.
    let members = link.one(member.cluster().member_list(MemberListRequest { linearizable: false })).await;
    let mut problems = status.errors.clone();
    if status.leader == 0 {
        problems.push("no leader".to_owned());
    }
    let name = match &members {
        Ok(answer) => {
            answer.members.iter().find(|member| member.id == header.member_id).map(|member| member.name.clone())
        }
        Err(failure) => {
            problems.push(failure.error.message.clone());
            None
        }
    };
    json!({
        "endpoint": endpoint,
        "phase": "answers",
        "name": name,
        "id": facts::id(header.member_id),
        "cluster": facts::id(header.cluster_id),
        "leader": status.leader != 0 && status.leader == header.member_id,
        "voter": !status.is_learner,
        "revision": header.revision,
        "term": status.raft_term,
        "log_index": status.raft_index,
        "applied_index": status.raft_applied_index,
        "size_bytes": status.db_size,
        "used_bytes": status.db_size_in_use,
        "version": status.version,
        "problems": problems,
    })
}

fn gone(endpoint: &str, failure: &Failure) -> Value {
    let why = if failure.error.why.is_empty() { &failure.error.message } else { &failure.error.why };
    json!({ "endpoint": endpoint, "phase": "away", "problems": [why] })
}
