//! A disk that is nearly full: nothing is put, everything else goes on, and it passes by itself.

use chainfire::door::Host;
use chainfire::member::{Member, Options, Place, Simulated};
use store::{Error, LeaseId, Op, Range, Store, Txn};

use crate::member_cluster::{get, put, put_soon, until};

fn options(simulated: &Simulated) -> Options {
    Options { place: Place::Simulated(simulated.clone()), ..Options::default() }
}

fn alarms(member: &Member) -> usize {
    member.system().rows.keys().filter(|key| key.starts_with(b"alarm/") && key.ends_with(b"/NOSPACE")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_puts_until_there_is_room() {
    let simulated = Simulated::default();
    let member = Member::open(options(&simulated)).await.unwrap();
    put_soon(&member, "old", "1").await;
    member.lease_grant(600, Some(LeaseId(7))).await.unwrap();
    let before = Store::status(&member).await.unwrap().revision;
    // Room for a little more than what there is, and less than is wanted.
    simulated.log.set_capacity(Some(8 * 1024 * 1024));
    until("puts are refused", async || matches!(put(&member, "new", "1").await, Err(Error::DiskFull)).then_some(()))
        .await;
    let put_and_read = Txn::of([Op::get("old"), Op::put("new", "1")]);
    assert!(matches!(member.txn(put_and_read).await, Err(Error::DiskFull)));
    assert!(matches!(member.lease_grant(600, None).await, Err(Error::DiskFull)));
    until("the alarm rings for all", async || (alarms(&member) == 1).then_some(())).await;
    let problems = Host::status(&member).await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("full")), "{problems:?}");
    // What needs no room goes on.
    assert_eq!(get(&member, "old").await.as_deref(), Some("1"));
    member.txn(Txn::of([Op::delete("old")])).await.unwrap();
    member.lease_revoke(LeaseId(7)).await.unwrap();
    let newest = Store::status(&member).await.unwrap().revision;
    member.compact(newest).await.unwrap();
    assert!(newest > before);
    simulated.log.set_capacity(None);
    put_soon(&member, "new", "2").await;
    until("the alarm is over", async || (alarms(&member) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_over_its_quota_waits_for_an_operator() {
    let simulated = Simulated::default();
    let member = Member::open(Options { quota_bytes: 64 * 1024, ..options(&simulated) }).await.unwrap();
    until("the quota is noticed", async || {
        for n in 0..20 {
            match put(&member, &format!("key/{n}"), &"x".repeat(8 * 1024)).await {
                Err(Error::DiskFull) => return Some(()),
                Err(Error::NoLeader) | Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
        None
    })
    .await;
    let range = Range::prefix("key/");
    member.txn(Txn::of([Op::Delete { range }])).await.unwrap();
    assert!(matches!(put(&member, "new", "1").await, Err(Error::DiskFull)), "until somebody has looked at it");
    let system = member.system();
    assert_eq!(alarms(&member), 1);
    let alarm = system.rows.keys().find(|key| key.starts_with(b"alarm/")).unwrap().clone();
    let moved = member.system_change(system.version, vec![(alarm, None)]).await.unwrap();
    assert_eq!(moved, system.version + 1);
    assert_eq!(alarms(&member), 0);
}
