//! Plays a history at one server and writes down what it says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Request, Response, Status};

use crate::frame::Frame;
use crate::inward::{self, Inward};
use crate::step::{Auth, Step, terse};
use crate::streams::{Change, Stream, Watched};
use crate::tidy;

/// A lease that is granted for less lives so long in etcd, and a moment longer until somebody looks.
const EXPIRY_WAIT: Duration = Duration::from_secs(30);
const EXPIRY_LOOK_EVERY: Duration = Duration::from_millis(100);

/// A step that is not over by then hangs. Long enough for every watch to be waited for in vain.
const STEP_MAX: Duration = Duration::from_secs(100);

/// What was asked, as it was meant, and each line of the answer.
#[derive(Clone, Debug)]
pub struct Played {
    pub asked: String,
    pub told: Vec<String>,
}

/// Connections to one server.
#[derive(Clone)]
pub struct Clients {
    pub kv: KvClient<Channel>,
    pub lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
    pub auth: AuthClient<Channel>,
    cluster: ClusterClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Clients {
    pub async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect().await?;
        Ok(Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            auth: AuthClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        })
    }
}

/// `message` with a token, as etcd's clients send it.
pub fn carrying<M>(message: impl IntoRequest<M>, token: Option<&str>) -> Request<M> {
    let mut request = message.into_request();
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("a token is plain text"));
    }
    request
}

pub struct Player {
    clients: Clients,
    frame: Frame,
    streams: BTreeMap<usize, Stream>,
    token: Option<String>,
    tokens: HashMap<String, String>,
    with_auth: bool,
    /// Users are switched on.
    guarded: bool,
    /// How long an answer that comes by itself is waited for.
    patience: Duration,
}

/// Shortens the arms of [`Player::unary`].
macro_rules! call {
    ($self:ident . $client:ident . $method:ident ( $message:expr )) => {{
        let request = carrying($message, $self.token());
        let answer = $self.clients.$client.$method(request).await;
        $self.shown(answer)
    }};
}

/// What etcd 3.4 lets everybody do, and ChainFire does not.
macro_rules! call_as_root {
    ($self:ident . $client:ident . $method:ident ( $message:expr )) => {{
        let token = $self.root_token().await;
        let answer = $self.clients.$client.$method(carrying($message, token.as_deref())).await;
        $self.shown(answer)
    }};
}

impl Player {
    /// Empties the server, so that it is as good as new from its newest revision on.
    pub async fn begin(clients: Clients, with_auth: bool, patience: Duration) -> anyhow::Result<Self> {
        let mut clients = clients;
        if with_auth {
            tidy::auth(&mut clients).await?;
        }
        let base = tidy::keys(&mut clients).await?;
        let frame = Frame::new(base);
        Ok(Self {
            clients,
            frame,
            streams: BTreeMap::new(),
            token: None,
            tokens: HashMap::new(),
            with_auth,
            guarded: false,
            patience,
        })
    }

    pub async fn play(mut self, steps: &[Step]) -> Vec<Played> {
        let mut played = Vec::with_capacity(steps.len() + 1);
        for step in steps.iter().chain([&Step::Settle]) {
            let asked = terse(&format!("{step:?}"));
            let told = timeout(STEP_MAX, self.step(step)).await;
            let hangs = told.is_err();
            played.push(Played { asked, told: told.unwrap_or_else(|_| vec!["it hangs".to_owned()]) });
            if hangs {
                break;
            }
        }
        played
    }

    async fn step(&mut self, step: &Step) -> Vec<String> {
        match step {
            Step::Watch { stream, create } => vec![self.watch(*stream, create.clone()).await],
            Step::Progress { stream } => {
                let patience = self.patience;
                let (stream, frame) = self.stream(*stream);
                vec![stream.progress(frame, patience).await]
            }
            Step::Cancel { stream, watch } => {
                let mut told = self.settle().await;
                let patience = self.patience;
                let (stream, frame) = self.stream(*stream);
                told.push(stream.cancel(frame, *watch, patience).await);
                told
            }
            Step::Settle => self.settle().await,
            Step::Compact(compact) => {
                let mut told = self.settle().await;
                let mut compact = *compact;
                compact.revision = self.frame.revision_out(compact.revision);
                let token = self.root_token().await;
                let answer = self.clients.kv.compact(carrying(compact, token.as_deref())).await;
                if answer.is_ok() {
                    self.frame.compacted_at(compact.revision);
                }
                told.push(self.shown(answer));
                told
            }
            Step::Brief(grant) => {
                let (id, told) = self.grant(*grant).await;
                let Some(id) = id else { return vec![told] };
                vec![told, self.revoke(id).await]
            }
            Step::Expire { lease, keys } => self.expire(*lease, keys).await,
            Step::Auth(auth) => vec![self.auth(auth).await],
            unary => vec![self.unary(unary).await],
        }
    }

    async fn unary(&mut self, step: &Step) -> String {
        match step {
            Step::Range(range) => {
                let mut request = range.clone();
                self.frame.range_out(&mut request);
                let mut answer = self.clients.kv.range(carrying(request, self.token())).await;
                if let Ok(answer) = &mut answer {
                    inward::settle_ties(range, answer.get_mut());
                }
                self.shown(answer)
            }
            Step::Txn(txn) => {
                let mut request = txn.clone();
                self.frame.txn_out(&mut request);
                let mut answer = self.clients.kv.txn(carrying(request, self.token())).await;
                if let Ok(answer) = &mut answer {
                    inward::settle_ties_of_txn(txn, answer.get_mut());
                }
                self.shown(answer)
            }
            Step::Put(put) => {
                let put = pb::PutRequest { lease: self.frame.lease_out(put.lease), ..put.clone() };
                call!(self.kv.put(put))
            }
            Step::Delete(delete) => call!(self.kv.delete_range(delete.clone())),
            Step::Grant(grant) => self.grant(*grant).await.1,
            Step::Revoke { lease } => {
                let id = self.frame.lease_out(*lease);
                self.revoke(id).await
            }
            Step::KeepAlive { lease } => self.keep_alive(*lease).await,
            Step::TimeToLive(look) => {
                let look = pb::LeaseTimeToLiveRequest { id: self.frame.lease_out(look.id), ..*look };
                call_as_root!(self.lease.lease_time_to_live(look))
            }
            Step::Leases => call_as_root!(self.lease.lease_leases(pb::LeaseLeasesRequest {})),
            Step::HashKv { revision } => {
                let revision = self.frame.revision_out(*revision);
                // Of the compacted revision itself version 3.4 has no hash; ChainFire has.
                let revision = if revision == self.frame.compacted() { 0 } else { revision };
                call!(self.maintenance.hash_kv(pb::HashKvRequest { revision }))
            }
            composed => unreachable!("{composed:?} is no single request"),
        }
    }

    /// While users are switched off nobody sends one: etcd 3.4 refuses an old one even then.
    fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|_| self.guarded)
    }

    fn shown<A: Inward>(&mut self, answer: Result<Response<A>, Status>) -> String {
        match answer {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                answer.inward(&mut self.frame);
                format!("{answer:?}")
            }
            Err(status) => inward::refused(&status),
        }
    }

    /// The lease's real id, and what was told.
    async fn grant(&mut self, grant: pb::LeaseGrantRequest) -> (Option<i64>, String) {
        let token = self.root_token().await;
        let answer = self.clients.lease.lease_grant(carrying(grant, token.as_deref())).await;
        let id = answer.as_ref().ok().map(|answer| answer.get_ref().id);
        if let Some(id) = id.filter(|_| grant.id == 0) {
            self.frame.lease_chosen(id);
        }
        (id, self.shown(answer))
    }

    /// Who says nothing may revoke a lease without keys in etcd.
    async fn revoke(&mut self, id: i64) -> String {
        let revoke = pb::LeaseRevokeRequest { id };
        match self.token() {
            Some(_) => call!(self.lease.lease_revoke(revoke)),
            None => call_as_root!(self.lease.lease_revoke(revoke)),
        }
    }

    async fn keep_alive(&mut self, lease: i64) -> String {
        let id = self.frame.lease_out(lease);
        let one = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let token = self.root_token().await;
        let answer = async {
            let mut answers = self.clients.lease.lease_keep_alive(carrying(one, token.as_deref())).await?.into_inner();
            answers
                .message()
                .await?
                .map(Response::new)
                .ok_or_else(|| Status::aborted("the stream ended without an answer"))
        };
        match timeout(self.patience, answer).await {
            Ok(answer) => self.shown(answer),
            Err(_) => "no answer".to_owned(),
        }
    }

    async fn expire(&mut self, lease: i64, keys: &[Bytes]) -> Vec<String> {
        let (id, granted) = self.grant(pb::LeaseGrantRequest { ttl: 1, id: lease }).await;
        let mut told = vec![granted];
        let Some(id) = id else { return told };
        for key in keys {
            let put = pb::PutRequest { key: key.clone(), lease: id, ..pb::PutRequest::default() };
            told.push(call!(self.kv.put(put)));
        }
        let until = Instant::now() + EXPIRY_WAIT;
        let look = pb::LeaseTimeToLiveRequest { id, keys: false };
        let token = self.root_token().await;
        loop {
            let answer = self.clients.lease.lease_time_to_live(carrying(look, token.as_deref())).await;
            // A lease whose time is over shows 0 or less until its keys are gone, and is not there afterwards.
            if answer.as_ref().is_ok_and(|answer| answer.get_ref().granted_ttl > 0) && Instant::now() < until {
                sleep(EXPIRY_LOOK_EVERY).await;
                continue;
            }
            told.push(self.shown(answer));
            return told;
        }
    }

    fn stream(&mut self, stream: usize) -> (&mut Stream, &mut Frame) {
        let token = self.token().map(str::to_owned);
        let open = || Stream::open(self.clients.watch.clone(), token);
        (self.streams.entry(stream).or_insert_with(open), &mut self.frame)
    }

    async fn watch(&mut self, stream: usize, mut create: pb::WatchCreateRequest) -> String {
        create.start_revision = self.frame.revision_out(create.start_revision);
        let patience = self.patience;
        let (stream, frame) = self.stream(stream);
        stream.create(frame, create, patience).await
    }

    /// Writes something that each watch must see, waits until it has, and tells what all of them have delivered.
    async fn settle(&mut self) -> Vec<String> {
        let alive = |stream: &Stream| stream.watches.values().any(|watch| !watch.is_over());
        if self.streams.values().any(alive) {
            self.mark().await;
        }
        let mut told = Vec::new();
        for (at, stream) in &mut self.streams {
            for (whose, lines) in stream.told(&mut self.frame) {
                told.extend(lines.into_iter().map(|line| format!("stream {at} {whose}: {line}")));
            }
        }
        told
    }

    async fn mark(&mut self) {
        let watches =
            || self.streams.values().flat_map(|stream| stream.watches.values()).filter(|watch| !watch.is_over());
        let keys: BTreeSet<Bytes> = watches().map(Watched::start).collect();
        let to_delete: BTreeSet<Bytes> =
            watches().filter(|watch| watch.sees_deletes_alone()).map(Watched::start).collect();
        let mut changes = Vec::new();
        let token = self.root_token().await;
        for key in keys {
            let put =
                pb::PutRequest { key: key.clone(), value: Bytes::from_static(b"mark"), ..pb::PutRequest::default() };
            let answer = self.clients.kv.put(carrying(put, token.as_deref())).await;
            let revision = self.revision_of(answer, |answer| &mut answer.header);
            changes.extend(revision.map(|revision| Change { key, revision, delete: false }));
        }
        for key in to_delete {
            let delete = pb::DeleteRangeRequest { key: key.clone(), ..pb::DeleteRangeRequest::default() };
            let answer = self.clients.kv.delete_range(carrying(delete, token.as_deref())).await;
            let revision = self.revision_of(answer, |answer| &mut answer.header);
            changes.extend(revision.map(|revision| Change { key, revision, delete: true }));
        }
        for stream in self.streams.values_mut() {
            let watches = stream.watches.iter();
            let marks: Vec<(i64, i64)> = watches.filter_map(|(id, watch)| Some((*id, watch.mark(&changes)?))).collect();
            for (watch, revision) in marks {
                stream.reach(&mut self.frame, watch, revision, self.patience).await;
            }
        }
    }

    /// For what another user may not do: here, or in etcd.
    async fn root_token(&mut self) -> Option<String> {
        if self.with_auth { tidy::root_token(&mut self.clients).await } else { None }
    }

    /// None when it was refused.
    fn revision_of<A>(
        &mut self,
        answer: Result<Response<A>, Status>,
        header: impl Fn(&mut A) -> &mut Option<pb::ResponseHeader>,
    ) -> Option<i64> {
        let mut answer = answer.ok()?.into_inner();
        let header = header(&mut answer);
        let revision = header.as_ref().map(|header| header.revision);
        self.frame.header_in(header);
        revision
    }

    async fn auth(&mut self, auth: &Auth) -> String {
        match auth.clone() {
            Auth::Enable => {
                let answer = self.clients.auth.auth_enable(carrying(pb::AuthEnableRequest {}, self.token())).await;
                self.guarded |= answer.is_ok();
                self.shown(answer)
            }
            Auth::Disable => {
                let answer = self.clients.auth.auth_disable(carrying(pb::AuthDisableRequest {}, self.token())).await;
                self.guarded &= answer.is_err();
                self.shown(answer)
            }
            Auth::Login { name, password } => {
                let login = pb::AuthenticateRequest { name: name.clone(), password };
                let answer = self.clients.auth.authenticate(login).await;
                if let Ok(answer) = &answer {
                    self.token = Some(answer.get_ref().token.clone());
                    self.tokens.insert(name, answer.get_ref().token.clone());
                }
                self.shown(answer)
            }
            Auth::Become { name } => {
                self.token = self.tokens.get(&name).cloned();
                String::new()
            }
            Auth::Leave => {
                self.token = None;
                String::new()
            }
            Auth::Forge => {
                self.token = Some("nobodygavethisout.77".to_owned());
                String::new()
            }
            Auth::UserAdd { name, password, no_password } => {
                let options = Some(etcd::proto::authpb::UserAddOptions { no_password });
                let add = pb::AuthUserAddRequest { name, password, options, ..pb::AuthUserAddRequest::default() };
                call!(self.auth.user_add(add))
            }
            Auth::UserGet { name } => call!(self.auth.user_get(pb::AuthUserGetRequest { name })),
            Auth::UserList => call!(self.auth.user_list(pb::AuthUserListRequest {})),
            Auth::UserDelete { name } => call!(self.auth.user_delete(pb::AuthUserDeleteRequest { name })),
            Auth::Password { name, password } => {
                let change = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
                call!(self.auth.user_change_password(change))
            }
            Auth::GrantRole { name: user, role } => {
                call!(self.auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }))
            }
            Auth::RevokeRole { name, role } => {
                call!(self.auth.user_revoke_role(pb::AuthUserRevokeRoleRequest { name, role }))
            }
            Auth::RoleAdd { role: name } => call!(self.auth.role_add(pb::AuthRoleAddRequest { name })),
            Auth::RoleGet { role } => call!(self.auth.role_get(pb::AuthRoleGetRequest { role })),
            Auth::RoleList => call!(self.auth.role_list(pb::AuthRoleListRequest {})),
            Auth::RoleDelete { role } => call!(self.auth.role_delete(pb::AuthRoleDeleteRequest { role })),
            Auth::Allow { role: name, permission: perm } => {
                call!(self.auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name, perm }))
            }
            Auth::Disallow { role, key, range_end } => {
                call!(self.auth.role_revoke_permission(pb::AuthRoleRevokePermissionRequest { role, key, range_end }))
            }
            Auth::Members => call_as_root!(self.cluster.member_list(pb::MemberListRequest { linearizable: true })),
            Auth::Status => call_as_root!(self.maintenance.status(pb::StatusRequest {})),
            Auth::Defragment => call!(self.maintenance.defragment(pb::DefragmentRequest {})),
            Auth::Alarms => call_as_root!(self.maintenance.alarm(pb::AlarmRequest::default())),
        }
    }
}
