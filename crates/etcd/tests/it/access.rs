//! Endpoints, certificates, users.

use std::time::Duration;

use etcd::proto::authpb::Permission;
use etcd::proto::authpb::permission::Type;
use etcd::proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, PutRequest, RangeRequest, StatusRequest,
};
use etcd::{Client, Error, Identity, Login, Options, Repeat, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::cluster::{Secure, Server, Settings, available};

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

/// The value of `key`, through [`Client::call`].
async fn get(client: &Client, key: &'static str) -> Result<Vec<u8>, tonic::Status> {
    let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
    let answer = client.call(Repeat::Always, |connection| {
        let request = request.clone();
        async move { connection.kv().range(request).await }
    });
    Ok(answer.await?.kvs.first().map(|kv| kv.value.to_vec()).unwrap_or_default())
}

#[tokio::test]
async fn stubs_speak_with_the_endpoint_that_answers() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    // Nobody listens at the first; a name that does not exist comes second.
    let endpoints = ["127.0.0.1:1".to_owned(), "nowhere.invalid:2379".to_owned(), server.endpoint()];
    let client = Client::connect(&Options::new(endpoints.clone())).await.unwrap();
    client.kv().put(put("a", "1")).await.unwrap();
    assert_eq!(get(&client, "a").await.unwrap(), b"1");
    let status = client.maintenance().status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.version.starts_with('3') && status.leader != 0);
    let names: Vec<&str> = client.connections().map(|(name, _)| name).collect();
    assert_eq!(names, endpoints);
    let mut reached = Vec::new();
    for (name, connection) in client.connections() {
        reached.extend(connection.maintenance().status(StatusRequest {}).await.ok().map(|_| name));
    }
    assert_eq!(reached, [server.endpoint()]);
}

#[tokio::test]
async fn a_call_waits_for_a_cluster_that_comes_back() {
    if !available() {
        return;
    }
    let mut server = Server::start(Settings::default()).await;
    let options = Options { request_time_max: Duration::from_mins(1), ..server.options() };
    let client = Client::connect(&options).await.unwrap();
    client.kv().put(put("a", "1")).await.unwrap();
    server.kill();
    assert!(client.kv().put(put("a", "2")).await.is_err(), "a bare stub does not wait");
    let waiting = tokio::spawn(async move { get(&client, "a").await });
    server.start_again().await;
    assert_eq!(waiting.await.unwrap().unwrap(), b"1");
}

#[tokio::test]
async fn where_nobody_answers_the_reason_is_told() {
    let options = Options { connect_time_max: Duration::from_secs(1), ..Options::new(["127.0.0.1:1"]) };
    let Err(Error::Unreachable { endpoint, reason }) = Client::connect(&options).await else { panic!("connected") };
    assert_eq!(endpoint, "127.0.0.1:1");
    assert!(reason.contains("refused"), "{reason}");
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// Certificate and key for 127.0.0.1, for both sides.
    fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn tls(&self, client: &Authority) -> Tls {
        let (certificate, key) = client.leaf("photon");
        let identity = Identity { certificate: certificate.into(), key: key.into() };
        Tls { authority: self.pem().into(), identity: Some(identity), server_name: None }
    }
}

#[tokio::test]
async fn certificates_are_asked_for_on_both_sides() {
    if !available() {
        return;
    }
    let authority = Authority::new("ours");
    let (certificate, key) = authority.leaf("store");
    let secure = Secure { certificate, key, authority: authority.pem(), client: authority.tls(&authority) };
    let server = Server::start(Settings { secure: Some(secure), ..Settings::default() }).await;
    let client = server.client().await;
    client.kv().put(put("a", "1")).await.unwrap();
    assert_eq!(get(&client, "a").await.unwrap(), b"1");

    let refused = async |tls: Tls| {
        let options = Options { tls: Some(tls), ..server.options() };
        match Client::connect(&options).await {
            Err(Error::Unreachable { reason, .. }) => reason,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("connected"),
        }
    };
    let other = Authority::new("others");
    let reason = refused(other.tls(&authority)).await;
    assert!(reason.contains("UnknownIssuer"), "the server is not whom we trust: {reason}");
    refused(authority.tls(&other)).await;
    refused(Tls { identity: None, ..authority.tls(&authority) }).await;
    let reason = refused(Tls { server_name: Some("elsewhere".into()), ..authority.tls(&authority) }).await;
    assert!(reason.contains("elsewhere") || reason.contains("NotValidForName"), "{reason}");
    let garbage = Tls { authority: b"-----BEGIN CERTIFICATE-----\nAAAA\n".to_vec(), ..authority.tls(&authority) };
    let options = Options { tls: Some(garbage), ..server.options() };
    assert!(matches!(Client::connect(&options).await, Err(Error::Tls { .. } | Error::Unreachable { .. })));
}

/// Users `root`, who may everything, and `reader`, who may read `a`; both with their name as password.
pub async fn enable_users(client: &Client) {
    let mut auth = client.auth();
    for role in ["root", "reading"] {
        auth.role_add(AuthRoleAddRequest { name: role.into() }).await.unwrap();
    }
    let perm = Permission { perm_type: Type::Read.into(), key: "a".into(), range_end: bytes::Bytes::new() };
    let grant = AuthRoleGrantPermissionRequest { name: "reading".into(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    for (user, role) in [("root", "root"), ("reader", "reading")] {
        let add = AuthUserAddRequest { name: user.into(), password: user.into(), ..AuthUserAddRequest::default() };
        auth.user_add(add).await.unwrap();
        auth.user_grant_role(AuthUserGrantRoleRequest { user: user.into(), role: role.into() }).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

pub fn as_user(options: &Options, user: &str, password: &str) -> Options {
    Options { login: Some(Login { user: user.into(), password: password.into() }), ..options.clone() }
}

#[tokio::test]
async fn a_token_is_fetched_and_renewed() {
    if !available() {
        return;
    }
    let mut server = Server::start(Settings::default()).await;
    let options = server.options();
    // Signed in before the cluster knows users: nothing happens, and it is made up for when it does.
    let early = Client::connect(&as_user(&options, "root", "root")).await.unwrap();
    early.kv().put(put("a", "1")).await.unwrap();
    enable_users(&early).await;
    assert_eq!(get(&early, "a").await.unwrap(), b"1");

    let nobody = Client::connect(&options).await.unwrap();
    assert!(get(&nobody, "a").await.is_err());
    let Err(Error::Login { user, reason }) = Client::connect(&as_user(&options, "root", "wrong")).await else {
        panic!("signed in")
    };
    assert!(user == "root" && reason.contains("authentication failed"), "{reason}");

    let reader = Client::connect(&as_user(&options, "reader", "reader")).await.unwrap();
    assert_eq!(get(&reader, "a").await.unwrap(), b"1");
    assert_eq!(get(&reader, "b").await.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(reader.kv().put(put("a", "2")).await.is_err());

    for user in ["reader", "root"] {
        forget_tokens(&early, user).await;
    }
    assert!(reader.kv().range(RangeRequest { key: "a".into(), ..RangeRequest::default() }).await.is_err());
    assert_eq!(get(&reader, "a").await.unwrap(), b"1");
    let (one, two) = tokio::join!(get(&early, "a"), get(&early, "a"));
    assert_eq!((one.unwrap(), two.unwrap()), (b"1".to_vec(), b"1".to_vec()));
    server.kill();
    server.start_again().await;
    assert_eq!(get(&reader, "a").await.unwrap(), b"1");
}

/// Of one user: a new password, though it is the old one, makes them invalid.
pub async fn forget_tokens(client: &Client, user: &str) {
    let change = AuthUserChangePasswordRequest {
        name: user.to_owned(),
        password: user.to_owned(),
        ..AuthUserChangePasswordRequest::default()
    };
    let changed = client.call(Repeat::Always, |connection| {
        let change = change.clone();
        async move { connection.auth().user_change_password(change).await }
    });
    changed.await.unwrap();
}
