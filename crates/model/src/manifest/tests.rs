use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"schema_version = "v1"

[app]
name = "shop"
description = "the shop"

[image]
ref = "registry.example/shop:1.4"
pull_policy = "if_not_present"

[env]
vars = { RUST_LOG = "info" }
workdir = "/app"
user = "app"
prestart = ["/app/migrate"]
prestart_timeout_seconds = 30

[processes.web]
command = ["/app/server"]
resources = { cpu = 1.0, memory = "512Mi", disk = "4Gi" }
scaling = { min = 1, max = 1 }
restart = { policy = "always", max_retries = 3, backoff_seconds = 2 }
secrets = { required = false }
[[processes.web.ports]]
name = "http"
internal = 8080
protocol = "tcp"
[processes.web.health]
type = "http"
port = "http"
path = "/healthz"
interval_seconds = 10
timeout_seconds = 2
grace_period_seconds = 10
success_threshold = 1
failure_threshold = 3
[[processes.web.mounts]]
volume = "data"
path = "/data"
read_only = false

[[volumes]]
name = "data"
size = "1Gi"
filesystem = "ext4"
backup_enabled = true
"#;

const LEAST: &str = "schema_version = \"v1\"\n[processes.web]\nresources = { memory = \"64Mi\" }\n";

/// The error of `WHOLE` with `from` turned into `to`, as `message | why | hint | field`.
fn refused(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    let error = parse(&WHOLE.replacen(from, to, 1)).expect_err(to);
    format!(
        "{}\n  why:   {}\n  hint:  {}\n  field: {}",
        error.message,
        error.why,
        error.hint,
        error.field.unwrap_or_default()
    )
}

#[test]
fn the_whole_manifest_is_read() {
    let manifest = parse(WHOLE).unwrap();
    let web = &manifest.processes["web"];
    assert_eq!(manifest.app.name.as_deref(), Some("shop"));
    assert_eq!(web.port(&web.health.as_ref().unwrap().port).unwrap().internal, 8080);
    insta::assert_snapshot!(manifest.canonical());
}

#[test]
fn the_least_manifest_has_every_default() {
    let manifest = parse(LEAST).unwrap();
    let web = &manifest.processes["web"];
    assert_eq!((web.resources.cpu, web.resources.disk), (1.0, Size::gib(4)));
    assert_eq!(web.scaling, Scaling::of(1, 1));
    assert_eq!(web.restart, Restart { policy: RestartPolicy::Always, max_retries: 3, backoff_seconds: 2 });
    assert_eq!(manifest.env.prestart_timeout_seconds, 30);
    insta::assert_json_snapshot!(manifest);
}

use crate::unit::Size;

#[test]
fn numbers_left_out_follow_from_those_written() {
    let text = LEAST.to_owned()
        + "scaling = { min = 0 }\nports = [{ internal = 80 }]\nhealth = { type = \"http\", port = 80 }\n";
    let manifest = parse(&text).unwrap();
    let web = &manifest.processes["web"];
    assert_eq!(web.scaling, Scaling::of(0, 1));
    assert_eq!(web.ports[0].name, "p80");
    assert_eq!(web.health.as_ref().unwrap().interval_seconds, 10);
    let many = parse(&(LEAST.to_owned() + "scaling = { min = 4 }\n")).unwrap();
    assert_eq!(many.processes["web"].scaling, Scaling::of(4, 4));
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_the_right_form() {
    let cases = [
        ("resources = { cpu = 1.0, memory = \"512Mi\", disk = \"4Gi\" }\n", ""),
        ("memory = \"512Mi\", ", ""),
        ("memory = \"512Mi\"", "memory = \"512MB\""),
        ("memory = \"512Mi\"", "memory = 512"),
        ("memory = \"512Mi\"", "memory = \"32Mi\""),
        ("memory = \"512Mi\"", "memroy = \"512Mi\""),
        ("[processes.web]", "[process.web]"),
        ("scaling = { min = 1, max = 1 }", "replicas = 3"),
        ("scaling = { min = 1, max = 1 }", "scaling = { min = 3, max = 1 }"),
        ("scaling = { min = 1, max = 1 }", "scaling = { min = 0, idle_seconds = 0 }"),
        ("scaling = { min = 1, max = 1 }", "scaling = { min = 0, warm_seconds = 100000 }"),
        ("scaling = { min = 1, max = 1 }", "scaling = { min = 1, max = 2 }"),
        ("internal = 8080", "internal = \"8080\""),
        ("internal = 8080", "internal = 80800"),
        ("internal = 8080", "internal = 0"),
        ("port = \"http\"", "port = \"htpp\""),
        ("type = \"http\"", "type = \"https\""),
        ("type = \"http\"", "type = \"tcp\""),
        ("policy = \"always\"", "policy = \"on_failure\""),
        ("command = [\"/app/server\"]", "command = \"/app/server --port 80\""),
        ("vars = { RUST_LOG = \"info\" }", "vars = { PORT = 8080 }"),
        ("vars = { RUST_LOG = \"info\" }", "vars = { rust-log = \"info\" }"),
        ("schema_version = \"v1\"", ""),
        ("schema_version = \"v1\"", "schema_version = \"v2\""),
        ("schema_version = \"v1\"", "schema_version = v1"),
        ("name = \"shop\"", "name = \"My Shop\""),
        ("path = \"/data\"", "path = \"/proc/data\""),
        ("path = \"/data\"", "path = \"data\""),
        ("volume = \"data\"", "volume = \"date\""),
        ("size = \"1Gi\"", "size = \"512Mi\""),
        ("workdir = \"/app\"", "workdir = \"/app/../etc\""),
        ("user = \"app\"", "user = \"app user\""),
        ("cpu = 1.0", "cpu = 0"),
        ("cpu = 1.0", "cpu = nan"),
        ("failure_threshold = 3", "failure_threshold = 0"),
        ("filesystem = \"ext4\"", "filesystem = \"xfs\""),
        ("ref = \"registry.example/shop:1.4\"", ""),
        ("ref = \"registry.example/shop:1.4\"", "ref = \"two words\""),
        ("[app]", "[app"),
        ("description = \"the shop\"", "description: \"the shop\""),
        ("description = \"the shop\"", "name = \"again\""),
    ];
    let mut all = String::new();
    for (from, to) in cases {
        use std::fmt::Write as _;
        let _ = writeln!(all, "--- {}\n+++ {to}\n{}\n", from.trim_end(), refused(from, to));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_same_rules_hold_for_json() {
    let manifest = parse(WHOLE).unwrap();
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(from_json(&json).unwrap(), manifest);
    assert_eq!(serde_json::from_value::<Manifest>(json.clone()).unwrap(), manifest);
    let mut wrong = json.clone();
    wrong["processes"]["web"]["resources"]["memroy"] = "1Gi".into();
    let error = from_json(&wrong).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("processes.web.resources.memroy"));
    assert!(error.hint.contains("`memory`"), "{}", error.hint);
    assert!(serde_json::from_value::<Manifest>(wrong).is_err());
    for value in [serde_json::json!(null), serde_json::json!([]), serde_json::json!("v1"), serde_json::json!({})] {
        assert!(from_json(&value).is_err());
    }
}

#[test]
fn a_process_lays_its_own_settings_over_the_env() {
    let text = r#"schema_version = "v1"
[env]
vars = { A = "env", B = "env" }
user = "app"
prestart = ["/migrate"]
[processes.web]
resources = { memory = "64Mi" }
vars = { B = "web" }
workdir = "/web"
prestart = []
"#;
    let manifest = parse(text).unwrap();
    let effective = manifest.processes["web"].effective(&manifest.env);
    assert_eq!(effective.vars["A"], "env");
    assert_eq!(effective.vars["B"], "web");
    assert_eq!((effective.user.as_deref(), effective.workdir.as_deref()), (Some("app"), Some("/web")));
    assert!(effective.prestart.is_empty());
}

#[test]
fn the_hash_follows_the_meaning_and_not_the_spelling() {
    let manifest = parse(WHOLE).unwrap();
    let respelled = parse(&WHOLE.replace("cpu = 1.0", "cpu = 1").replace("\"4Gi\"", "\"4096Mi\"")).unwrap();
    assert_eq!(manifest.hash(), respelled.hash());
    assert_eq!(manifest.hash().len(), 64);
    assert_ne!(manifest.hash(), parse(&WHOLE.replace("512Mi", "513Mi")).unwrap().hash());
}

fn word() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-z][a-z0-9]{0,8}").unwrap()
}

prop_compose! {
    fn any_process()(
        command in proptest::collection::vec("\\PC{1,12}|[\\n\\t\"\\\\]{1,4}", 0..3),
        vars in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,6}", "\\PC{0,12}", 0..3),
        memory in 64u64..4096,
        cpu in 1u32..640,
        min in 0u32..5,
        more in 0u32..5,
        port in proptest::option::of(1u16..),
        policy in 0usize..3,
        required: bool,
    ) -> Process {
        let ports: Vec<Port> = port.map(|internal| Port { name: format!("p{internal}"), internal, protocol: Protocol::Tcp }).into_iter().collect();
        Process {
            command,
            workdir: required.then(|| "/srv".to_owned()),
            user: None,
            vars,
            prestart: required.then(Vec::new),
            resources: Resources { cpu: f64::from(cpu) / 10.0, memory: Size::mib(memory), disk: Size::gib(4) },
            scaling: Scaling { idle_seconds: min + 1, ..Scaling::of(min, (min + more).max(1)) },
            restart: Restart { policy: [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never][policy], max_retries: min, backoff_seconds: 2 },
            secrets: SecretsNeed { required },
            health: port.map(|internal| Health {
                kind: HealthType::Http, port: PortRef::Number(internal), path: required.then(|| "/x".to_owned()),
                interval_seconds: 10, timeout_seconds: min + 1, grace_period_seconds: 10, success_threshold: 1, failure_threshold: 3,
            }),
            ports,
            mounts: Vec::new(),
        }
    }
}

prop_compose! {
    fn any_manifest()(
        name in proptest::option::of(word()),
        description in "\\PC{0,20}",
        processes in proptest::collection::btree_map(word(), any_process(), 1..4),
        reference in proptest::option::of("[a-z]{1,9}:[0-9]{1,3}"),
        backup_enabled: bool,
    ) -> Manifest {
        Manifest {
            schema_version: "v1".to_owned(),
            app: App { name, description },
            image: reference.map(|reference| Image { reference, pull_policy: PullPolicy::Always }),
            env: Env::default(),
            processes,
            volumes: vec![Volume { name: "data".to_owned(), size: Size::gib(2), filesystem: Filesystem::Ext4, backup_enabled }],
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_answered_without_panic(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_bytes_put_into_a_manifest_are_answered_without_panic(at in 0usize..WHOLE.len(), end in 0usize..60, text in "\\PC{0,12}") {
        let end = (at + end).min(WHOLE.len());
        let _ = parse(&format!("{}{text}{}", &WHOLE[..at], &WHOLE[end..]));
    }

    #[test]
    fn the_canonical_text_reads_back_as_the_same_manifest(manifest in any_manifest()) {
        let text = manifest.canonical();
        let read = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(&read, &manifest);
        prop_assert_eq!(read.canonical(), text);
    }
}
