use std::fmt::Write as _;

use clap::Args;
use etcd::proto::etcdserverpb::{MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest};
use model::Code;
use serde_json::{Value, json};

use super::facts;
use super::link::{Link, LinkArgs};
use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub struct MembersArgs {
    #[command(flatten)]
    link: LinkArgs,
}

#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Its name, or its id as `vt store members` shows it
    #[arg(value_name = "NAME|ID")]
    member: String,
    #[command(flatten)]
    link: LinkArgs,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// The name it will be started with
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the others reach it; may be repeated
    #[arg(long = "peer-url", value_name = "URL", required = true)]
    peer_urls: Vec<String>,
    /// With a vote at once. While it is not there yet, it counts among those who must agree
    #[arg(long)]
    voter: bool,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn list(session: &Session, args: &MembersArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let items: Vec<Value> = facts::members(&link).await?.iter().map(facts::shown).collect();
    session.out.list(&items, &Value::Null, &facts::columns())?;
    Ok(0)
}

/// What was asked, of which member, who they are now, and what to run next.
fn receipt(session: &Session, operation: &str, member: Value, members: &[Value], next: &[String]) -> Outcome {
    let receipt = json!({ "operation": operation, "member": member, "members": members, "next": next });
    session.out.value(&receipt, || {
        let name = member["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("member");
        let mut text = format!("{operation} {name} {}\n", member["id"].as_str().unwrap_or_default());
        for (place, command) in next.iter().enumerate() {
            let _ = writeln!(text, "  {}  {command}", if place == 0 { "next" } else { "    " });
        }
        text + &crate::output::table::render(members, &facts::columns(), session.out.now_ms)
    })?;
    Ok(0)
}

pub async fn add(session: &Session, args: &AddArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let before = facts::members(&link).await?;
    if before.iter().any(|member| member.name == args.name) {
        return Err(
            Failure::new(Code::Conflict, format!("there is a member `{}` already", args.name)).hint("vt store members")
        );
    }
    let ask = MemberAddRequest { peer_ur_ls: args.peer_urls.clone(), is_learner: !args.voter };
    let answer = link
        .change(|member| {
            let ask = ask.clone();
            async move { member.cluster().member_add(ask).await }
        })
        .await?;
    let added = answer.member.ok_or_else(|| Failure::new(Code::Internal, "the store named no new member"))?;
    // It has a name for itself only once it has started.
    let own = args.peer_urls.iter().map(|url| format!("{}={url}", args.name));
    let others = answer.members.iter().filter(|member| member.id != added.id);
    let others = others.flat_map(|member| {
        let name = facts::label(member);
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    let cluster: Vec<String> = others.chain(own).collect();
    let urls = args.peer_urls.join(",");
    let mut next = vec![format!(
        "vt store serve --name {} --initial-cluster-state existing --initial-cluster {} \
         --initial-advertise-peer-urls {urls} --listen-peer-urls {urls}",
        args.name,
        cluster.join(",")
    )];
    if !args.voter {
        next.push(format!("vt store promote {}", facts::id(added.id)));
    }
    let members: Vec<Value> = answer.members.iter().map(facts::shown).collect();
    let mut member = facts::shown(&added);
    member["name"] = json!(args.name);
    receipt(session, "added", member, &members, &next)
}

pub async fn remove(session: &Session, args: &NamedArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let before = facts::members(&link).await?;
    let member = facts::find(&before, &args.member)?;
    let answer = link
        .change(|asked| {
            let ask = MemberRemoveRequest { id: member.id };
            async move { asked.cluster().member_remove(ask).await }
        })
        .await?;
    let members: Vec<Value> = answer.members.iter().map(facts::shown).collect();
    let next = [format!("stop {} where it runs, and remove its --data-dir", facts::label(member))];
    receipt(session, "removed", facts::shown(member), &members, &next)
}

pub async fn promote(session: &Session, args: &NamedArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let before = facts::members(&link).await?;
    let member = facts::find(&before, &args.member)?;
    // Only the leader knows how far a learner has come.
    let leader = facts::leader(link, &before).await?;
    let answer = leader
        .change(|asked| {
            let ask = MemberPromoteRequest { id: member.id };
            async move { asked.cluster().member_promote(ask).await }
        })
        .await?;
    let now = answer.members.iter().find(|now| now.id == member.id).unwrap_or(member);
    let members: Vec<Value> = answer.members.iter().map(facts::shown).collect();
    receipt(session, "promoted", facts::shown(now), &members, &["vt store status".to_owned()])
}

pub async fn transfer(session: &Session, args: &NamedArgs) -> Outcome {
    let link = Link::open(&args.link).await?;
    let members = facts::members(&link).await?;
    let member = facts::find(&members, &args.member)?;
    let leader = facts::leader(link, &members).await?;
    leader
        .change(|asked| {
            let ask = MoveLeaderRequest { target_id: member.id };
            async move { asked.maintenance().move_leader(ask).await }
        })
        .await?;
    let shown: Vec<Value> = members.iter().map(facts::shown).collect();
    receipt(session, "leader is", facts::shown(member), &shown, &["vt store status".to_owned()])
}
