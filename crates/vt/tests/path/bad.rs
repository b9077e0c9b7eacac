//! Bad input: refused before anything changes, with the field and the fix.

use std::fs;
use std::process::Stdio;

use crate::Scenario;
use crate::cloud::{Cloud, Ran, VT};

pub const ALL: &[Scenario] = &[
    ("bad::manifests", manifests),
    ("bad::images", images),
    ("bad::an_app_that_exits_at_once", an_app_that_exits_at_once),
    ("bad::an_app_that_eats_all_memory", an_app_that_eats_all_memory),
    ("bad::an_app_that_never_opens_its_port", an_app_that_never_opens_its_port),
    ("bad::starting_where_it_cannot_work", starting_where_it_cannot_work),
    ("bad::unknown_tokens", unknown_tokens),
];

fn manifests(cloud: &Cloud) {
    let folder = cloud.app("wrong", "v1", 1);
    let good = cloud.manifest("wrong", "v1", 1);
    let cases = [
        (good.replace("memory = \"128Mi\", ", ""), "memory"),
        (good.replace("128Mi", "128MB"), "128Mi"),
        (good.replace("scaling", "scalling"), "scaling"),
        (good.replace("path = \"/healthz\"", "path = \"healthz\""), "path"),
    ];
    for (text, named) in cases {
        fs::write(folder.join("vt.toml"), text).unwrap();
        let ran = cloud.vt(&folder, &["deploy"]).fails(2);
        assert!(ran.stderr.contains(named), "{}", ran.stderr);
        assert!(ran.stderr.contains("error[VT"), "{}", ran.stderr);
    }
    // Asleep when nobody asks, and up to five of it: refused for what is not there yet, not taken for something else.
    let sleeping = good.replace("min = 1", "min = 0");
    fs::write(folder.join("vt.toml"), sleeping).unwrap();
    let ran = cloud.vt(&folder, &["deploy"]).fails(2);
    assert!(ran.stderr.contains("scaling.max") && ran.stderr.contains("max = 1"), "{}", ran.stderr);
    assert!(cloud.list(&folder, "release").is_empty(), "nothing was released");
}

fn images(cloud: &Cloud) {
    let folder = cloud.app("wrong", "v1", 1);
    let layout = cloud.layout.display().to_string();
    for (reference, named) in [
        (format!("oci:{layout}:nosuchtag"), "nosuchtag"),
        (format!("oci:{layout}:foreign"), "s390x"),
        (format!("oci:{layout}:nothing"), "entrypoint"),
        ("oci:/no/such/folder:v1".to_owned(), "/no/such/folder"),
        (format!("127.0.0.1:{}/nobody:v1", crate::cloud::free_port()), "127.0.0.1"),
        ("not a reference".to_owned(), "image.ref"),
    ] {
        let ran = cloud.vt(&folder, &["deploy", "--image", &reference]);
        assert!(ran.code != 0, "{reference} was taken");
        assert!(ran.stderr.contains(named), "{reference}: {}", ran.stderr);
    }
    assert!(cloud.list(&folder, "release").is_empty(), "nothing was released");
}

/// A deploy that fails says why, and leaves with 1.
fn fails_with(cloud: &Cloud, name: &str, tag: &str, code: &str) -> Ran {
    let folder = cloud.app(name, tag, 1);
    let ran = cloud.vt(&folder, &["deploy"]).fails(1);
    assert!(ran.stderr.contains(code), "{}", ran.stderr);
    let why = cloud.vt(&folder, &["why", name]).ok();
    assert!(why.stdout.contains(code), "{}", why.stdout);
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
    ran
}

fn an_app_that_exits_at_once(cloud: &Cloud) {
    fails_with(cloud, "exits", "exits", "crash_loop_backoff");
}

fn an_app_that_eats_all_memory(cloud: &Cloud) {
    fails_with(cloud, "hungry", "hungry", "oom_killed");
}

fn an_app_that_never_opens_its_port(cloud: &Cloud) {
    fails_with(cloud, "deaf", "deaf", "healthcheck_failed");
}

fn starting_where_it_cannot_work(cloud: &Cloud) {
    let other = cloud.folder.join("other");
    fs::create_dir_all(&other).unwrap();
    let data = other.join("data").display().to_string();
    let client = other.join("client.toml");
    let up = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = cloud.command(&other, &["up", "--data-dir", &data]);
        command.env("VT_CONFIG", &client).env_remove("VT_DATA_DIR").stdin(Stdio::null());
        change(&mut command);
        Ran::of(command.output().unwrap())
    };
    // The ingress's port is the running cloud's.
    let ran = up(&|_| {});
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("ingress") && ran.stderr.contains(&cloud.http_port.to_string()), "{}", ran.stderr);
    // The API's port is.
    let free = |name: &str, command: &mut std::process::Command| {
        command.env(name, format!("127.0.0.1:{}", crate::cloud::free_port()));
    };
    let ran = up(&|command| {
        free("VT_INGRESS_HTTP", command);
        free("VT_INGRESS_TLS", command);
        free("VT_KEYSPACE_LISTEN", command);
        command.env("VT_VM_ACCELERATOR", "tcg");
        // The kernel that the running cloud fetched.
        std::os::unix::fs::symlink(cloud.data().join("kernels"), other.join("data/kernels")).ok();
    });
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(&cloud.api_port.to_string()) && ran.stderr.contains("--listen"), "{}", ran.stderr);
    // A data folder that another cloud has.
    let ran = up(&|command| {
        command.args(["--data-dir"]).arg(cloud.data());
    });
    assert!(ran.code != 0, "a data folder was shared");
    // Programs are missing.
    let ran = up(&|command| {
        command.env("PATH", "/nonexistent");
    });
    assert!(
        ran.code != 0 && ran.stderr.contains("apt-get install") && ran.stderr.contains("qemu-system-x86"),
        "{}",
        ran.stderr
    );
    // Not root.
    let vt = other.join("vt");
    fs::copy(VT, &vt).unwrap();
    let open = |folder: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&other);
    let script = std::env::temp_dir().join(format!("vt-not-root-{}", std::process::id()));
    fs::copy(VT, &script).unwrap();
    open(&script);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&script).args([
        "up",
        "--data-dir",
        "/tmp/x",
    ]);
    let ran = Ran::of(command.current_dir("/").output().unwrap());
    fs::remove_file(&script).ok();
    assert!(ran.code != 0 && ran.stderr.contains("root") && ran.stderr.contains("sudo"), "{}", ran.stderr);
}

fn unknown_tokens(cloud: &Cloud) {
    for token in ["", "vt_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "garbage"] {
        let (status, problem) = cloud.api(token, "GET", "/v1/apps", None);
        assert_eq!(status, 401, "{problem}");
    }
    let mut command = cloud.command(&cloud.folder, &["app", "list"]);
    command.env("VT_TOKEN", "vt_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 4, "{}", ran.stderr);
}
