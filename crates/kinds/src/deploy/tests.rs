//! Tables of rows in, steps out.

use model::manifest::Manifest;
use model::{Id, Reason, Row, Scope};
use reconcile::{Next, Table};
use serde_json::json;

use super::contract::Status;
use super::plan::{REPLACEMENTS_MAX, ROLLOUT_MS_MAX, Step, plan};
use crate::route;
use crate::settings::Settings;
use crate::testing::{cloud, row};

const NOW: u64 = 1_000_000;

struct Cloud {
    rows: Vec<Row>,
    env: Scope,
}

fn settings() -> Settings {
    Settings {
        domain: "vt.localhost".into(),
        http_port: 8080,
        tls_port: None,
        prefixes: novanet::Prefixes { v4: "10.240.0.0/12".parse().unwrap(), v6: "fd00:1:2::/48".parse().unwrap() },
        mtu: 1420,
        dns: Vec::new(),
    }
}

fn manifest() -> Manifest {
    let text = "schema_version = \"v1\"\n[processes.web]\nresources = { memory = \"128Mi\" }\n\
        [[processes.web.ports]]\nname = \"http\"\ninternal = 8080\n\
        [processes.web.health]\ntype = \"http\"\nport = \"http\"\npath = \"/\"\n";
    model::manifest::parse(text).unwrap()
}

impl Cloud {
    /// App `shop` with env `prod` that wants `desired` instances, and releases 1 and 2.
    fn new(desired: u32) -> Self {
        let org = row(&cloud(), "org", 1);
        let project = row(&org.inner_scope(), "prj", 2);
        let mut app = row(&project.inner_scope(), "app", 3);
        app.name = "shop".into();
        let mut env = row(&app.inner_scope(), "env", 4);
        env.name = "prod".into();
        env.spec = json!({ "scale": { "web": desired } });
        let scope = env.inner_scope();
        let mut cloud = Self { rows: vec![org, project, app.clone(), env], env: scope };
        for number in [1, 2] {
            let mut release = row(&app.inner_scope(), "rel", number);
            release.kind = "release".into();
            let digest = format!("sha256:{number:064x}");
            release.spec = json!({
                "number": number,
                "image": "registry.example/shop",
                "resolved": {
                    "reference": "registry.example/shop:1",
                    "platform": "linux/amd64",
                    "index_digest": null,
                    "digest": digest,
                    "config_digest": digest,
                    "config_bytes": 1,
                    "layers": [],
                    "config": { "entrypoint": ["/server"] },
                    "compressed_bytes": 1,
                },
                "manifest": manifest(),
                "manifest_hash": "0",
            });
            cloud.rows.push(release);
        }
        cloud
    }

    fn deploy(&mut self, number: u128, release: u128, phase: &str) -> Row {
        let mut deploy = row(&self.env, "dep", number);
        deploy.kind = "deploy".into();
        deploy.name = format!("d{number}");
        deploy.spec = json!({ "release": Id::from_bits("rel", release) });
        deploy.phase = phase.into();
        deploy.created_ms = NOW;
        self.rows.push(deploy.clone());
        deploy
    }

    fn vm(&mut self, number: u128, owner: &Row, release: u128, phase: &str) {
        let mut vm = row(&self.env, "vm", number);
        vm.name = format!("web-{number}");
        vm.owner = Some(owner.id.clone());
        vm.phase = phase.into();
        vm.spec = json!({
            "release": Id::from_bits("rel", release), "process": "web", "image": "sha256:0", "argv": ["/server"], "env": [],
            "workdir": "", "user": "", "prestart": [], "prestart_timeout_seconds": 30,
            "restart": { "policy": "always", "max_retries": 3, "backoff_seconds": 2 },
            "cpu": 1.0, "memory": "128Mi", "disk": "4Gi", "ports": [], "health": null, "health_port": null,
            "secrets": null, "secrets_required": false, "network": { "number": 0, "offset": 2 },
        });
        if phase == "failed" {
            vm.reason = Some(Reason::fault("healthcheck_failed", "nobody listens", "look at the port"));
        }
        self.rows.push(vm);
    }

    fn route(&mut self, backends: &[u128]) {
        let mut route = row(&self.env, "rt", 1);
        route.kind = "route".into();
        route.spec = serde_json::to_value(route::Spec::http("shop-prod.vt.localhost".into(), "web", 8080)).unwrap();
        let backends: Vec<Id> = backends.iter().map(|number| Id::from_bits("vm", *number)).collect();
        route.status = json!({ "url": "http://shop-prod.vt.localhost:8080", "backends": backends });
        self.rows.push(route);
    }

    fn plan(&self, deploy: &Row) -> (Vec<Step>, reconcile::Report, Status) {
        self.plan_at(deploy, NOW)
    }

    fn plan_at(&self, deploy: &Row, now: u64) -> (Vec<Step>, reconcile::Report, Status) {
        let plan = plan(deploy, &Table::from_rows(self.rows.clone()), now, &settings());
        let status = serde_json::from_value(plan.report.status.clone()).unwrap_or_default();
        (plan.steps, plan.report, status)
    }

    /// Rows in, one word a step out.
    fn steps(&self, deploy: &Row) -> Vec<String> {
        let word = |step: Step| match step {
            Step::Create { name, spec } => format!("create {name} {}", spec.release.short().trim_start_matches('0')),
            Step::Route { spec, .. } => format!("route {}", spec.host.unwrap_or_default()),
            Step::Delete { id, .. } => format!("delete {}", id.short().trim_start_matches('0')),
        };
        self.plan(deploy).0.into_iter().map(word).collect()
    }
}

#[test]
fn the_first_deploy_makes_all_instances_and_a_route() {
    let mut cloud = Cloud::new(2);
    let deploy = cloud.deploy(1, 1, "pending");
    assert_eq!(cloud.steps(&deploy), ["route shop-prod.vt.localhost", "create web-1 1", "create web-2 1"]);
    assert_eq!(cloud.plan(&deploy).1.phase, "rolling");
}

#[test]
fn it_is_live_once_all_are_ready_and_traffic_has_moved() {
    let mut cloud = Cloud::new(2);
    let deploy = cloud.deploy(1, 1, "rolling");
    cloud.vm(1, &deploy, 1, "ready");
    cloud.vm(2, &deploy, 1, "ready");
    cloud.route(&[1]);
    let (steps, report, _) = cloud.plan(&deploy);
    assert_eq!(
        (steps.len(), report.phase.as_str(), report.reason.unwrap().code.as_str()),
        (0, "rolling", "traffic_moving")
    );
    cloud.rows.pop();
    cloud.route(&[1, 2]);
    let (steps, report, status) = cloud.plan(&deploy);
    assert_eq!((steps.len(), report.phase.as_str(), report.reason, report.next), (0, "live", None, Next::Done));
    assert_eq!(status.url.as_deref(), Some("http://shop-prod.vt.localhost:8080"));
    assert_eq!((status.ready, status.desired, status.release_number), (2, 2, 1));
}

#[test]
fn a_rollout_adds_one_then_takes_one_away() {
    let mut cloud = Cloud::new(2);
    let old = cloud.deploy(1, 1, "live");
    let new = cloud.deploy(2, 2, "rolling");
    cloud.vm(1, &old, 1, "ready");
    cloud.vm(2, &old, 1, "ready");
    cloud.route(&[1, 2]);
    assert_eq!(cloud.steps(&new), ["create web-3 2"], "surge of one");
    assert!(cloud.steps(&old).is_empty(), "the older deploy keeps still while a newer one rolls");
    cloud.vm(3, &new, 2, "starting");
    assert!(cloud.steps(&new).is_empty(), "nothing is taken away before the new one is ready");
    cloud.rows.pop();
    cloud.vm(3, &new, 2, "ready");
    assert_eq!(cloud.steps(&new), ["delete 1"], "one old one for one new one");
}

#[test]
fn never_fewer_ready_than_desired_and_never_more_than_one_above() {
    for desired in 1..=4_u32 {
        let mut cloud = Cloud::new(desired);
        let old = cloud.deploy(1, 1, "live");
        let new = cloud.deploy(2, 2, "rolling");
        for number in 1..=u128::from(desired) {
            cloud.vm(number, &old, 1, "ready");
        }
        cloud.route(&[]);
        let mut number = 100;
        for _ in 0..50 {
            let (steps, ..) = cloud.plan(&new);
            for step in steps {
                match step {
                    Step::Create { .. } => {
                        number += 1;
                        cloud.vm(number, &new, 2, "starting");
                    }
                    Step::Delete { id, .. } => cloud.rows.retain(|row| row.id != id),
                    Step::Route { .. } => panic!("there is a route"),
                }
            }
            let vms = || cloud.rows.iter().filter(|row| row.kind == "vm");
            let ready = vms().filter(|vm| vm.phase == "ready").count();
            assert!(ready >= desired as usize, "{ready} of {desired} ready");
            assert!(vms().count() <= desired as usize + 1);
            if let Some(vm) = cloud.rows.iter_mut().find(|row| row.phase == "starting") {
                vm.phase = "ready".into();
            }
        }
        let releases: Vec<_> =
            cloud.rows.iter().filter(|row| row.kind == "vm").map(|vm| vm.spec["release"].clone()).collect();
        assert_eq!(releases.len(), desired as usize);
        assert!(releases.iter().all(|release| *release == json!(Id::from_bits("rel", 2))));
    }
}

#[test]
fn a_failed_instance_fails_the_rollout_and_the_live_deploy_takes_back_the_env() {
    let mut cloud = Cloud::new(1);
    let old = cloud.deploy(1, 1, "live");
    let mut new = cloud.deploy(2, 2, "rolling");
    cloud.vm(1, &old, 1, "ready");
    cloud.vm(2, &new, 2, "failed");
    cloud.route(&[1]);
    let (steps, report, _) = cloud.plan(&new);
    let reason = report.reason.unwrap();
    assert_eq!((steps.len(), report.phase.as_str(), reason.code.as_str()), (0, "failed", "healthcheck_failed"));
    assert!(reason.message.contains("web-2 failed: nobody listens; d1 stays live"), "{}", reason.message);
    new.phase = "failed".into();
    cloud.rows.iter_mut().find(|row| row.id == new.id).unwrap().phase = "failed".into();
    assert_eq!(cloud.steps(&old), ["delete 2"]);
    assert!(cloud.steps(&new).is_empty());
    // Fresh failures stay for people to read their log, and are in nobody's way.
    cloud
        .rows
        .iter_mut()
        .find(|row| row.phase == "failed" && row.kind == "vm")
        .unwrap()
        .reason
        .as_mut()
        .unwrap()
        .since_ms = NOW;
    let (steps, report, _) = cloud.plan(&old);
    assert_eq!((steps.len(), report.phase.as_str(), report.reason), (0, "live", None));
}

#[test]
fn a_newer_deploy_supersedes_one_that_rolls() {
    let mut cloud = Cloud::new(1);
    let first = cloud.deploy(1, 1, "rolling");
    let second = cloud.deploy(2, 2, "pending");
    cloud.vm(1, &first, 1, "starting");
    cloud.route(&[]);
    let (_, report, _) = cloud.plan(&first);
    assert_eq!((report.phase.as_str(), report.reason.unwrap().code.as_str()), ("superseded", "superseded"));
    assert_eq!(cloud.steps(&second), ["create web-2 2", "delete 1"], "one that never served goes at once");
}

#[test]
fn a_live_deploy_is_superseded_only_when_the_next_is_live() {
    let mut cloud = Cloud::new(1);
    let old = cloud.deploy(1, 1, "live");
    let new = cloud.deploy(2, 2, "live");
    cloud.vm(2, &new, 2, "ready");
    cloud.route(&[2]);
    let (_, report, _) = cloud.plan(&old);
    assert_eq!((report.phase.as_str(), report.reason), ("superseded", None));
}

#[test]
fn scaling_down_takes_those_that_do_not_serve_first() {
    let mut cloud = Cloud::new(1);
    let deploy = cloud.deploy(1, 1, "live");
    cloud.vm(1, &deploy, 1, "ready");
    cloud.vm(2, &deploy, 1, "starting");
    cloud.vm(3, &deploy, 1, "ready");
    cloud.route(&[1, 3]);
    assert_eq!(cloud.steps(&deploy), ["delete 2", "delete 3"]);
}

#[test]
fn an_instance_that_sleeps_would_serve_and_counts_as_one() {
    let mut cloud = Cloud::new(1);
    let old = cloud.deploy(1, 1, "live");
    cloud.vm(1, &old, 1, "sleeping");
    cloud.route(&[]);
    let (steps, report, _) = cloud.plan(&old);
    assert_eq!((steps, report.phase.as_str(), report.reason), (Vec::new(), "live", None));
    // It stays until another serves.
    let deploy = cloud.deploy(2, 2, "rolling");
    assert_eq!(cloud.steps(&deploy), ["create web-2 2"]);
    cloud.vm(2, &deploy, 2, "starting");
    assert!(cloud.steps(&deploy).is_empty());
    cloud.rows.pop();
    cloud.vm(2, &deploy, 2, "ready");
    assert_eq!(cloud.steps(&deploy), ["delete 1"]);
}

#[test]
fn a_changed_secret_replaces_instances_by_the_same_rules() {
    let mut cloud = Cloud::new(1);
    let deploy = cloud.deploy(1, 1, "live");
    cloud.vm(1, &deploy, 1, "ready");
    cloud.route(&[1]);
    let mut bundle = row(&cloud.env, "sb", 1);
    bundle.kind = "secret".into();
    bundle.spec = json!({ "keys": ["A"], "version": 2 });
    cloud.rows.push(bundle);
    assert_eq!(cloud.steps(&deploy), ["create web-2 1"]);
}

#[test]
fn a_live_deploy_replaces_failures_but_not_for_ever() {
    let mut cloud = Cloud::new(1);
    let mut deploy = cloud.deploy(1, 1, "live");
    cloud.vm(1, &deploy, 1, "failed");
    cloud.route(&[]);
    let (steps, _, status) = cloud.plan(&deploy);
    assert_eq!((steps.len(), status.replaced_ms.as_slice()), (1, [NOW].as_slice()));
    deploy.status = json!({ "replaced_ms": vec![NOW; REPLACEMENTS_MAX] });
    let (steps, report, _) = cloud.plan(&deploy);
    assert_eq!((steps.len(), report.reason.unwrap().code.as_str()), (0, "crash_loop_backoff"));
}

#[test]
fn a_rollout_that_takes_too_long_fails_with_the_blocker() {
    let mut cloud = Cloud::new(1);
    let deploy = cloud.deploy(1, 1, "rolling");
    cloud.vm(1, &deploy, 1, "starting");
    cloud.rows.last_mut().unwrap().reason = Some(Reason::waiting("image_pulling", "12 of 40 MB"));
    cloud.route(&[]);
    let (_, report, _) = cloud.plan_at(&deploy, NOW + ROLLOUT_MS_MAX);
    let reason = report.reason.unwrap();
    assert_eq!((report.phase.as_str(), reason.code.as_str()), ("failed", "image_pulling"));
    assert!(reason.message.contains("12 of 40 MB"));
}

#[test]
fn a_host_that_another_tenant_has_gets_a_name_of_its_own() {
    let mut cloud = Cloud::new(1);
    let deploy = cloud.deploy(1, 1, "pending");
    let other = Scope::CLOUD.child(Id::from_bits("org", 9));
    let mut taken = row(&other, "rt", 9);
    taken.kind = "route".into();
    taken.spec = serde_json::to_value(route::Spec::http("shop-prod.vt.localhost".into(), "web", 80)).unwrap();
    cloud.rows.push(taken);
    let steps = cloud.steps(&deploy);
    assert!(steps[0].starts_with("route shop-prod-0") && steps[0] != "route shop-prod.vt.localhost", "{steps:?}");
}
