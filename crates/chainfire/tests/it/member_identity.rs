//! Whoever does not belong is refused, and told why.

use chainfire::door::Host;
use chainfire::member::{Member, OpenError, Options, Place, Simulated};
use store::Error;

use crate::member_cluster::{Cluster, put_soon, until, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_is_refused() {
    let cluster = Cluster::in_memory(3).await;
    let stranger = |place| Options {
        initial_cluster_token: "another".to_owned(),
        place,
        listen_peer_urls: vec![url("stranger")],
        ..cluster.options(0)
    };
    let refused = Member::open(stranger(Place::Simulated(Simulated::default()))).await;
    let error = refused.err().expect("it is refused");
    assert!(matches!(error, OpenError::OtherCluster { .. }), "{error}");
    // One that was alone when it began, and meets the others only then.
    let place = Place::Simulated(Simulated::default());
    for n in 0..3 {
        cluster.isolate(n);
    }
    let name = cluster.nodes[0].name.clone();
    for other in &cluster.nodes[1..] {
        cluster.hub.cut(&name, &other.name);
    }
    let member = Member::open(stranger(place)).await.expect("nobody says anything against it");
    for other in &cluster.nodes[1..] {
        cluster.hub.heal(&name, &other.name);
    }
    until("it is told", async || {
        let problems = Host::status(&member).await.ok()?.problems;
        problems.iter().any(|problem| problem.contains("another cluster")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_belongs_to_one_member_of_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { place: Place::Folder(dir.path().to_path_buf()), ..Options::default() };
    let member = Member::open(options()).await.unwrap();
    put_soon(&member, "key", "").await;
    let id = member.id();
    let second = Member::open(options()).await;
    assert!(matches!(second, Err(OpenError::Store(Error::Locked { .. }))), "{:?}", second.err());
    member.close().await.unwrap();
    drop(member);
    let other =
        Options { name: "other".to_owned(), advertise_peer_urls: vec!["http://other:1".to_owned()], ..options() };
    let refused = Member::open(other).await;
    assert!(matches!(refused, Err(OpenError::OtherMember { .. })), "{:?}", refused.err());
    let other = Options { initial_cluster_token: "another".to_owned(), ..options() };
    let refused = Member::open(other).await;
    assert!(matches!(refused, Err(OpenError::OtherToken { .. })), "{:?}", refused.err());
    let again = Member::open(options()).await.expect("its own member opens it");
    assert_eq!(again.id(), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_folder_does_not_begin_again() {
    let mut cluster = Cluster::on_disk(3).await;
    put_soon(&*cluster.store(0), "key", "").await;
    let lost = cluster.follower().await;
    until("it is known", async || {
        let members = Host::members(&**cluster.member(lost), true).await.ok()?;
        members.iter().all(|fact| !fact.contact.name.is_empty()).then_some(())
    })
    .await;
    cluster.stop(lost).await;
    let empty = tempfile::tempdir().unwrap();
    let options = Options { place: Place::Folder(empty.path().to_path_buf()), ..cluster.options(lost) };
    let refused = Member::open(options).await;
    let error = refused.err().expect("it has promised what it does not know any more");
    assert!(matches!(error, OpenError::DataGone { .. }) && error.to_string().contains("add it again"), "{error}");
    cluster.restart(lost).await;
    cluster.agree().await;
}
