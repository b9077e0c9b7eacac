//! What works, and what is refused, without a cloud.

use super::run::Place;

fn all(place: &Place, lines: &[&str]) -> String {
    lines.iter().fold(String::new(), |out, line| {
        let arguments: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        out + &format!("$ vt {line}\n{}\n", place.vt(&arguments).whole())
    })
}

#[test]
fn codes_are_explained_without_a_network() {
    let place = Place::new();
    let lines = [
        "explain VT2304",
        "explain vt1404 --json",
        "explain oom_killed",
        "explain VT9999",
        "explain image_pul_failed",
        "explain --format csv",
    ];
    insta::assert_snapshot!(all(&place, &lines));
    let codes = place.vt(&["explain", "--json"]).json();
    assert!(codes["items"].as_array().unwrap().len() > 60 && codes["next"].is_null());
}

#[test]
fn without_a_cloud_every_command_says_how_to_get_one() {
    let place = Place::new();
    place.write("vt.toml", "schema_version = \"v1\"\n[app]\nname = \"shop\"\n[image]\nref = \"x:1\"\n[processes.web]\nresources = { memory = \"64Mi\" }\n");
    let mut out = String::new();
    for line in [
        "status",
        "deploy",
        "vm list",
        "logs",
        "events",
        "auth whoami",
        "why",
        "scale web=2",
        "admin replay",
        "version",
    ] {
        out += &all(&place, &[line]);
    }
    insta::assert_snapshot!(out);
    assert_eq!(place.vt(&["exec", "--", "true"]).code, 125);
    assert_eq!(place.vt(&["exec", "nonsense"]).code, 125);
}

#[test]
fn a_cloud_that_is_away_is_named() {
    let place = Place::new();
    place.write("ca.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    let mut out = all(
        &place,
        &[
            "status -a shop --api http://127.0.0.1:1",
            "status -a shop --api https://127.0.0.1:1",
            "status -a shop --api https://127.0.0.1:1 --ca-file none.pem",
            "status -a shop --api https://127.0.0.1:1 --ca-file ca.pem",
        ],
    );
    let ca = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    place.write("ca.pem", &ca.cert.pem());
    out += &all(&place, &["status -a shop --api https://127.0.0.1:1 --ca-file ca.pem"]);
    insta::assert_snapshot!(out);
    let ran = place.vt(&["status", "-a", "shop", "--api", "https://127.0.0.1:1", "--ca-file", "ca.pem", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((error["code"].as_str(), error["retryable"].as_bool()), (Some("unavailable"), Some(true)));
}

#[test]
fn settings_say_where_they_come_from() {
    let place = Place::new();
    place.write("config.toml", "current = \"lab\"\n[contexts.lab]\napi = \"https://10.0.0.1:7443\"\nca_file = \"ca.pem\"\ntoken = \"vt_at_hidden\"\nproject = \"shop\"\n");
    let vars = [("VT_CONFIG", "config.toml"), ("VT_ENV", "staging"), ("NO_COLOR", "1")];
    let run = |arguments: &[&str]| place.vt_with(arguments, &vars, "");
    insta::assert_snapshot!(run(&["config", "show", "--origin", "--org", "acme"]).whole());
    let json = run(&["config", "show", "--json"]).json();
    assert_eq!((json["api"].as_str(), json["env"].as_str()), (Some("https://10.0.0.1:7443"), Some("staging")));
    for format in ["table", "json", "yaml", "csv"] {
        assert!(!run(&["config", "show", "--format", format]).stdout.contains("vt_at_hidden"), "{format}");
    }
    place.write("config.toml", "[contexts.lab]\napi = \"https://10.0.0.1:7443\"\ntokn = \"vt_at_hidden\"\n");
    let ran = run(&["auth", "whoami"]);
    assert!(!ran.stderr.contains("vt_at_hidden"), "{}", ran.stderr);
    insta::assert_snapshot!("a_wrong_key_in_the_file_of_contexts", ran.whole());
}

#[test]
fn a_value_on_the_command_line_is_refused_and_not_repeated() {
    let place = Place::new();
    let ran = place.vt(&["secrets", "set", "-a", "shop", "API_KEY=hunter2"]);
    assert!(!ran.whole().contains("hunter2"));
    insta::assert_snapshot!(ran.whole());
}

#[test]
fn completion_is_a_script_for_each_shell() {
    let place = Place::new();
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef vt"), ("fish", "complete")] {
        let ran = place.vt(&["completion", shell]);
        assert!(ran.code == 0 && ran.stdout.contains(word) && ran.stdout.contains("VT_COMPLETE"), "{}", ran.whole());
        assert_eq!(place.vt(&["completion", shell, "--json"]).json()["script"], ran.stdout);
    }
}

#[test]
fn the_shell_is_answered_with_words() {
    let place = Place::new();
    let vars = [
        ("VT_COMPLETE", "bash"),
        ("_CLAP_COMPLETE_INDEX", "1"),
        ("_CLAP_IFS", "\n"),
        ("_CLAP_COMPLETE_COMP_TYPE", "9"),
        ("_CLAP_COMPLETE_SPACE", "true"),
    ];
    let ran = place.vt_with(&["--", "vt", "dep"], &vars, "");
    assert_eq!((ran.code, ran.stdout.trim()), (0, "deploy"), "{}", ran.whole());
}

#[test]
fn the_machine_is_looked_at_in_every_format() {
    let place = Place::new();
    let json = place.vt(&["--json"]).json();
    assert!(json["next"].as_str().unwrap().starts_with("vt ") && json["running"] == false);
    let doctor = place.vt(&["doctor", "--json"]);
    let found = doctor.json();
    assert_eq!(doctor.code == 0, found["ok"] == true);
    let names: Vec<&str> =
        found["findings"].as_array().unwrap().iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    for name in
        ["root", "memory", "disk", "kvm", "cgroups", "ipv6", "tun", "qemu-system-x86_64", "nft", "mkfs.ext4", "api"]
    {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for finding in found["findings"].as_array().unwrap() {
        assert_eq!(finding["state"] == "ok", finding["fix"] == "", "what is not good says how to mend it: {finding}");
    }
    assert!(place.vt(&[]).stdout.contains("\nnext: vt "));
    assert!(place.vt(&["doctor"]).stdout.contains("memory"));
}

#[test]
fn a_manifest_is_written_for_an_image_and_never_over_another() {
    let place = Place::new();
    layout(&place);
    let ran = place.vt(&["launch", "--image", "oci:image:1", "-a", "shop"]);
    insta::assert_snapshot!(format!("{}\n{}", ran.whole(), place.read("vt.toml")));
    assert_eq!(place.vt(&["manifest", "check"]).code, 0);
    let again = place.vt(&["launch", "--image", "oci:image:1"]);
    assert_eq!(again.code, 8, "{}", again.whole());
    assert_eq!(place.vt(&["launch", "--image", "oci:image:1", "-a", "other", "--force"]).code, 0);
    assert_eq!(place.vt(&["manifest", "check", "--json"]).json()["app"], "other");
    insta::assert_snapshot!(
        "an_image_that_is_not_there",
        place.vt(&["launch", "--image", "oci:none:1", "--force"]).whole()
    );
}

/// An OCI image layout without layers, written by hand.
fn layout(place: &Place) {
    use sha2::{Digest as _, Sha256};
    let blobs = place.path().join("image/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |value: serde_json::Value| {
        let bytes = value.to_string().into_bytes();
        let hex = Sha256::digest(&bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        std::fs::write(blobs.join(&hex), &bytes).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let (config, config_size) = put(serde_json::json!({
        "os": "linux", "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": [] },
        "config": { "Entrypoint": ["/usr/sbin/nginx"], "Cmd": ["-g", "daemon off;"], "ExposedPorts": { "80/tcp": {}, "9113/tcp": {} } },
    }));
    let (manifest, size) = put(serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
    }));
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size,
        "annotations": { "org.opencontainers.image.ref.name": "1" },
    }] });
    place.write("image/index.json", &index.to_string());
    place.write("image/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
}
