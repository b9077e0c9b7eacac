//! Makes a server as good as new before a history: what the one before left behind is removed.

use bytes::Bytes;
use etcd::proto::etcdserverpb as pb;

use crate::play::{Clients, carrying};

/// Leases may be many, and each look at them lists only some.
const TIDY_TRIES: usize = 5;

/// A history looks back from its start, and what lies before the first revision of a store is "newest" to etcd.
const REVISION_MIN: i64 = 64;

/// The password that root always has, so that what a history switched on can be switched off.
pub const ROOT: (&str, &str) = ("root", "root");

/// Removes leases, keys and the past; answers the newest revision.
pub async fn keys(clients: &mut Clients) -> anyhow::Result<i64> {
    for _ in 0..TIDY_TRIES {
        let leases = clients.lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases;
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            // It may have run out by now.
            let _ = clients.lease.lease_revoke(pb::LeaseRevokeRequest { id: lease.id }).await;
        }
    }
    let nul = Bytes::from_static(b"\0");
    // A revision of its own, so that there is something to compact.
    let put = pb::PutRequest { key: nul.clone(), ..pb::PutRequest::default() };
    while clients.kv.put(put.clone()).await?.into_inner().header.map_or(0, |header| header.revision) < REVISION_MIN {}
    let everything = pb::DeleteRangeRequest { key: nul.clone(), range_end: nul, prev_kv: false };
    let header = clients.kv.delete_range(everything).await?.into_inner().header;
    let revision = header.map_or(0, |header| header.revision);
    clients.kv.compact(pb::CompactionRequest { revision, physical: true }).await?;
    Ok(revision)
}

/// None when nobody has to show who they are.
pub async fn root_token(clients: &mut Clients) -> Option<String> {
    let login = pb::AuthenticateRequest { name: ROOT.0.to_owned(), password: ROOT.1.to_owned() };
    Some(clients.auth.authenticate(login).await.ok()?.into_inner().token)
}

/// Switches auth off and removes users and roles.
pub async fn auth(clients: &mut Clients) -> anyhow::Result<()> {
    let token = root_token(clients).await;
    clients.auth.auth_disable(carrying(pb::AuthDisableRequest {}, token.as_deref())).await?;
    for name in clients.auth.user_list(pb::AuthUserListRequest {}).await?.into_inner().users {
        clients.auth.user_delete(pb::AuthUserDeleteRequest { name }).await?;
    }
    for role in clients.auth.role_list(pb::AuthRoleListRequest {}).await?.into_inner().roles {
        clients.auth.role_delete(pb::AuthRoleDeleteRequest { role }).await?;
    }
    Ok(())
}
