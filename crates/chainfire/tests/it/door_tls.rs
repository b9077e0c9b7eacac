//! TLS at the door: who gets in, and as whom.

use std::path::Path;

use chainfire::door::{Options, TlsFiles};
use etcd::proto::etcdserverpb::auth_client::AuthClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, PutRequest,
};
use etcd::proto::{authpb::UserAddOptions, etcdserverpb};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::door_support::{Door, serve_with};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str, until_year: i32) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

fn write(folder: &Path, issued: &Issued) {
    std::fs::write(folder.join("server.key"), &issued.key).unwrap();
    std::fs::write(folder.join("server.pem"), &issued.certificate).unwrap();
}

async fn open(folder: &Path, client_cert_auth: bool) -> Door {
    let files = TlsFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        trusted_ca: client_cert_auth.then(|| folder.join("ca.pem")),
        client_cert_auth,
    };
    serve_with(Options { tls: Some(files), ..Options::new(["https://127.0.0.1:0".into()]) }).await
}

async fn connect(door: &Door, trust: &str, identity: Option<&Issued>) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trust)).domain_name("localhost");
    if let Some(Issued { certificate, key }) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Endpoint::from_shared(format!("https://{}", door.address())).unwrap().tls_config(tls).unwrap().connect().await
}

async fn put(channel: Channel) -> Result<(), Code> {
    let put = PutRequest { key: "a".into(), ..PutRequest::default() };
    KvClient::new(channel).put(put).await.map(|_| ()).map_err(|status| status.code())
}

/// A client whose certificate is refused hears of it after its own side of the handshake is done.
async fn gets_in(door: &Door, trust: &str, identity: Option<&Issued>) -> bool {
    match connect(door, trust, identity).await {
        Ok(channel) => put(channel).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn only_certificates_of_the_trusted_authority_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    write(folder.path(), &ours.issue("server", 2099));
    std::fs::write(folder.path().join("ca.pem"), &ours.pem).unwrap();

    let open_door = open(folder.path(), false).await;
    assert!(gets_in(&open_door, &ours.pem, None).await);
    assert!(!gets_in(&open_door, &other.pem, None).await, "the client does not know the server");

    let door = open(folder.path(), true).await;
    assert!(gets_in(&door, &ours.pem, Some(&ours.issue("alice", 2099))).await);
    assert!(!gets_in(&door, &ours.pem, None).await, "no certificate");
    assert!(!gets_in(&door, &ours.pem, Some(&other.issue("alice", 2099))).await, "another authority's");
    assert!(!gets_in(&door, &ours.pem, Some(&ours.issue("alice", 2021))).await, "expired");
    let plain = Endpoint::from_shared(format!("http://{}", door.address())).unwrap().connect().await;
    assert!(match plain {
        Ok(channel) => put(channel).await.is_err(),
        Err(_) => true,
    });
}

#[tokio::test]
async fn a_certificate_that_changed_is_used_and_one_that_is_broken_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    write(folder.path(), &old.issue("server", 2099));
    let door = open(folder.path(), false).await;
    assert!(gets_in(&door, &old.pem, None).await);
    std::fs::write(folder.path().join("server.pem"), "no certificate").unwrap();
    assert!(gets_in(&door, &old.pem, None).await, "the old one goes on");
    write(folder.path(), &new.issue("server", 2099));
    assert!(!gets_in(&door, &old.pem, None).await);
    assert!(gets_in(&door, &new.pem, None).await);
}

#[tokio::test]
async fn the_name_in_a_certificate_is_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    write(folder.path(), &authority.issue("server", 2099));
    std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    let door = open(folder.path(), true).await;
    let as_user = async |name: &str| connect(&door, &authority.pem, Some(&authority.issue(name, 2099))).await.unwrap();
    let mut auth = AuthClient::new(as_user("root").await);
    auth.role_add(AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    for name in ["root", "alice"] {
        let options = Some(UserAddOptions { no_password: true });
        auth.user_add(AuthUserAddRequest { name: name.into(), options, ..AuthUserAddRequest::default() })
            .await
            .unwrap();
    }
    let root = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(root).await.unwrap();
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    assert_eq!(put(as_user("root").await).await, Ok(()));
    assert_eq!(put(as_user("alice").await).await, Err(Code::PermissionDenied));
    let password = etcdserverpb::AuthenticateRequest { name: "alice".into(), password: String::new() };
    let status = auth.authenticate(password).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: authentication failed, invalid user ID or password");
}
