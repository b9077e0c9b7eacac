//! What members say of themselves and of each other.

use etcd::Connection;
use etcd::proto::etcdserverpb::{Member, MemberListRequest, StatusRequest, StatusResponse};
use model::Code;
use serde_json::{Value, json};

use super::link::Link;
use crate::failure::Failure;
use crate::output::Column;

/// As people write it.
pub fn id(id: u64) -> String {
    format!("{id:x}")
}

/// Ascending by id.
pub async fn members(link: &Link) -> Result<Vec<Member>, Failure> {
    let ask = |member: Connection| async move {
        member.cluster().member_list(MemberListRequest { linearizable: true }).await
    };
    let mut members = link.read(ask).await?.members;
    members.sort_by_key(|member| member.id);
    Ok(members)
}

/// Of the member that is asked.
pub async fn status(link: &Link) -> Result<StatusResponse, Failure> {
    link.read(|member| async move { member.maintenance().status(StatusRequest {}).await }).await
}

/// The one that `name` means: a name, or an id in hexadecimal.
pub fn find<'a>(members: &'a [Member], name: &str) -> Result<&'a Member, Failure> {
    let named: Vec<&Member> = members.iter().filter(|member| member.name == name || id(member.id) == name).collect();
    match named[..] {
        [member] => Ok(member),
        [] => {
            let known: Vec<String> = members.iter().map(label).collect();
            let near = model::manifest::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            let failure = Failure::new(Code::NotFound, format!("no member `{name}`"));
            Err(failure
                .why(format!("there are {}", known.join(", ")))
                .hint(near.map_or_else(|| "vt store members".to_owned(), |near| format!("did you mean `{near}`?"))))
        }
        _ => Err(Failure::usage(format!("`{name}` is the name of {} members", named.len())).hint("give the id")),
    }
}

/// Its name; before its first start it has none.
pub fn label(member: &Member) -> String {
    if member.name.is_empty() { id(member.id) } else { member.name.clone() }
}

pub fn shown(member: &Member) -> Value {
    json!({
        "id": id(member.id),
        "name": member.name,
        "phase": if member.name.is_empty() { "not started" } else { "started" },
        "voter": !member.is_learner,
        "peer_urls": member.peer_ur_ls,
        "client_urls": member.client_ur_ls,
    })
}

pub fn columns() -> Vec<Column> {
    [
        ("ID", "/id"),
        ("NAME", "/name"),
        ("PHASE", "/phase"),
        ("VOTER", "/voter"),
        ("PEERS REACH IT AT", "/peer_urls"),
        ("CLIENTS REACH IT AT", "/client_urls"),
    ]
    .map(|(title, pointer)| Column::new(title, pointer))
    .to_vec()
}

/// A link to the leader: some things it alone does.
pub async fn leader(link: Link, members: &[Member]) -> Result<Link, Failure> {
    let status = status(&link).await?;
    if status.leader == status.header.as_ref().map_or(0, |header| header.member_id) {
        return Ok(link);
    }
    let none = || Failure::new(Code::Unavailable, "the store has no leader at the moment").hint("vt store status");
    let member = members.iter().find(|member| member.id == status.leader).ok_or_else(none)?;
    link.at(&member.client_ur_ls).await
}
