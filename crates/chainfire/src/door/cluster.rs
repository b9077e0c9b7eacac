//! The Cluster service.

use etcd::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    ResponseHeader,
};
use http::Uri;
use tonic::Status;

use super::desk::{Call, Desk};
use super::host::{MemberChange, MemberFact};
use super::refusal::{self, Known, MEMBER_BAD_URLS};
use crate::member::types::Contact;

/// Addresses of one member.
const URLS_MAX: usize = 16;

fn member(fact: MemberFact) -> Member {
    Member {
        id: fact.id,
        name: fact.contact.name,
        peer_ur_ls: fact.contact.peer_urls,
        client_ur_ls: fact.contact.client_urls,
        is_learner: fact.learner,
    }
}

fn members(facts: Vec<MemberFact>) -> Vec<Member> {
    facts.into_iter().map(member).collect()
}

/// One at least, each `http://host:port` or `https://host:port`; sorted.
fn urls(given: Vec<String>) -> Result<Vec<String>, Known> {
    let mut urls: Vec<_> = given.into_iter().map(|url| url.trim().to_owned()).collect();
    let good = |url: &String| {
        let uri: Option<Uri> = url.parse().ok();
        uri.is_some_and(|uri| {
            let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
            scheme && uri.port_u16().is_some() && uri.path() == "/" && uri.query().is_none() && !url.ends_with('/')
        })
    };
    if urls.is_empty() || urls.len() > URLS_MAX || !urls.iter().all(good) {
        return Err(MEMBER_BAD_URLS);
    }
    urls.sort();
    Ok(urls)
}

impl Desk {
    /// etcd says no revision here.
    fn cluster_header(&self) -> ResponseHeader {
        self.header(store::Revision::ZERO)
    }

    async fn change_members(&self, change: MemberChange) -> Result<Vec<MemberFact>, Status> {
        self.host.change(change).await.map_err(refusal::of_member)
    }

    pub async fn member_add(&self, call: &Call, request: MemberAddRequest) -> Result<MemberAddResponse, Status> {
        let peer_urls = urls(request.peer_ur_ls)?;
        self.admin(call)?;
        let contact = Contact { peer_urls: peer_urls.clone(), ..Contact::default() };
        let after = self.change_members(MemberChange::Add { contact, learner: request.is_learner }).await?;
        let added = after.iter().find(|fact| fact.contact.peer_urls == peer_urls).cloned();
        Ok(MemberAddResponse {
            header: Some(self.cluster_header()),
            member: added.map(member),
            members: members(after),
        })
    }

    pub async fn member_remove(
        &self,
        call: &Call,
        request: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, Status> {
        self.admin(call)?;
        let after = self.change_members(MemberChange::Remove(request.id)).await?;
        Ok(MemberRemoveResponse { header: Some(self.cluster_header()), members: members(after) })
    }

    pub async fn member_update(
        &self,
        call: &Call,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, Status> {
        self.admin(call)?;
        let change = MemberChange::Update { id: request.id, peer_urls: urls(request.peer_ur_ls)? };
        let after = self.change_members(change).await?;
        Ok(MemberUpdateResponse { header: Some(self.cluster_header()), members: members(after) })
    }

    pub async fn member_promote(
        &self,
        call: &Call,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, Status> {
        self.admin(call)?;
        let after = self.change_members(MemberChange::Promote(request.id)).await?;
        Ok(MemberPromoteResponse { header: Some(self.cluster_header()), members: members(after) })
    }

    pub async fn member_list(&self, call: &Call, request: MemberListRequest) -> Result<MemberListResponse, Status> {
        self.someone(call)?;
        let all = self.host.members(!request.linearizable).await.map_err(refusal::of)?;
        Ok(MemberListResponse { header: Some(self.cluster_header()), members: members(all) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_with_a_port_and_nothing_after_it() {
        let check = |urls: &[&str]| super::urls(urls.iter().map(ToString::to_string).collect());
        assert_eq!(check(&["https://b:1", "http://10.0.0.1:2380"]).unwrap(), ["http://10.0.0.1:2380", "https://b:1"]);
        for bad in [&[][..], &["http://a"], &["a:1"], &["ftp://a:1"], &["http://a:1/x"], &["http://a:1", "x"], &[""]] {
            assert_eq!(check(bad), Err(MEMBER_BAD_URLS), "{bad:?}");
        }
    }
}
