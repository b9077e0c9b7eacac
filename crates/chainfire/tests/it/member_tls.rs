//! Members over TCP, who trust each other's certificates and nobody else's.

use std::time::Duration;

use chainfire::door::Host;
use chainfire::member::peer::tls::Tls;
use chainfire::member::types::Contact;
use chainfire::member::{InitialState, Member, OpenError, Options, Place, Simulated};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use store::Store;

use crate::member_cluster::{get, put_soon};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str], expired: bool) -> Tls {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Tls {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authority: self.0.pem().into_bytes(),
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn options(name: &str, port: u16, initial: &[(String, String)], tls: Option<Tls>) -> Options {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://127.0.0.1:{port}");
    Options {
        name: name.to_owned(),
        place: Place::Simulated(Simulated::default()),
        listen_peer_urls: vec![url.clone()],
        advertise_peer_urls: vec![url],
        initial_cluster: initial.to_vec(),
        tls,
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_trust_the_certificates_of_their_authority_alone() {
    let authority = Authority::new();
    let good = || Some(authority.issue(&["127.0.0.1"], false));
    let ports = [free_port(), free_port(), free_port()];
    let url = |port: u16| format!("https://127.0.0.1:{port}");
    let initial: Vec<_> = (1..).zip(ports).map(|(n, port)| (format!("m{n}"), url(port))).collect();
    let mut members = Vec::new();
    for (n, port) in (1..).zip(ports) {
        members.push(Member::open(options(&format!("m{n}"), port, &initial, good())).await.unwrap());
    }
    put_soon(&members[0], "key", "value").await;
    for member in &members {
        assert_eq!(get(member, "key").await.as_deref(), Some("value"));
    }

    let other = Authority::new();
    let unsigned = other.issue(&["127.0.0.1"], false);
    let mixed = Tls { authority: authority.0.pem().into_bytes(), ..other.issue(&["127.0.0.1"], false) };
    let expired = authority.issue(&["127.0.0.1"], true);
    for (what, tls) in [("another authority", unsigned), ("a foreign certificate", mixed), ("expired", expired)] {
        let port = free_port();
        let mut initial = initial.clone();
        initial.push(("stranger".to_owned(), url(port)));
        let joining =
            Options { initial_cluster_state: InitialState::Existing, ..options("stranger", port, &initial, Some(tls)) };
        let refused = Member::open(joining).await.err();
        assert!(matches!(refused, Some(OpenError::NobodyAnswers(_))), "{what}: {refused:?}");
    }
    let port = free_port();
    let plain: Vec<_> = ports.iter().map(|port| ("m".to_owned(), format!("http://127.0.0.1:{port}"))).collect();
    let plain = [plain, vec![("stranger".to_owned(), format!("http://127.0.0.1:{port}"))]].concat();
    let joining = Options { initial_cluster_state: InitialState::Existing, ..options("stranger", port, &plain, None) };
    let refused = Member::open(joining).await.err();
    assert!(matches!(refused, Some(OpenError::NobodyAnswers(_))), "without TLS: {refused:?}");

    // A certificate for another name is no certificate for this address.
    let port = free_port();
    let contact = Contact { peer_urls: vec![url(port)], ..Contact::default() };
    let change = chainfire::door::host::MemberChange::Add { contact, learner: true };
    tokio::time::timeout(Duration::from_mins(1), async {
        while members[0].change(change.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("a learner is added");
    let mut initial = initial;
    initial.push(("m4".to_owned(), url(port)));
    let misnamed = authority.issue(&["elsewhere"], false);
    let joining =
        Options { initial_cluster_state: InitialState::Existing, ..options("m4", port, &initial, Some(misnamed)) };
    let learner = Member::open(joining).await.expect("it is one of the authority's, and may ask");
    let unreached = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let mut problems = Vec::new();
            for member in &members {
                problems.extend(Host::status(member).await.unwrap().problems);
            }
            let told = |problem: &String| problem.contains(&port.to_string()) && problem.contains("certificate");
            if problems.iter().any(told) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    unreached.await.expect("the leader says why it does not reach it");
    drop(learner);
    members[0].range(store::Range::key("key")).await.expect("the others go on");
}

#[test]
fn what_is_no_certificate_is_refused() {
    let good = Authority::new().issue(&["127.0.0.1"], false);
    good.armour().map(drop).unwrap();
    let bad = Tls { key: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(), ..good.clone() };
    assert!(bad.armour().is_err());
    let bad = Tls { certificate: Vec::new(), ..good.clone() };
    assert!(bad.armour().map(drop).unwrap_err().to_string().contains("no certificate"));
    let bad = Tls { key: Authority::new().issue(&["127.0.0.1"], false).key, ..good };
    assert!(bad.armour().is_err(), "the key of another certificate");
}
