//! Images that other people's tools made.

use std::path::Path;

use image::{Limits, Reference};

use crate::support::{Mounted, folder, has, open, run, store};

/// An image of umoci's with one file; its layout's folder.
pub fn umoci(dir: &Path) -> String {
    let layout = dir.join("umoci").display().to_string();
    let tagged = format!("{layout}:v1");
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &tagged]);
    let content = dir.join("content");
    std::fs::create_dir_all(content.join("sub")).unwrap();
    std::fs::write(content.join("greeting"), "hello").unwrap();
    std::os::unix::fs::symlink("../greeting", content.join("sub/link")).unwrap();
    run("umoci", &["insert", "--rootless", "--image", &tagged, content.to_str().unwrap(), "/srv"]);
    run("umoci", &["insert", "--rootless", "--image", &tagged, "/bin/true", "/srv/sub/program"]);
    run(
        "umoci",
        &[
            "config",
            "--image",
            &tagged,
            "--config.entrypoint",
            "/srv/sub/program",
            "--config.cmd",
            "-v",
            "--config.env",
            "A=b c",
            "--config.exposedports",
            "8080/tcp",
            "--config.user",
            "1000:1000",
            "--config.workingdir",
            "/srv",
            "--config.label",
            "team=shop",
        ],
    );
    layout
}

async fn check(reference: &str, dir: &Path) -> image::Resolved {
    let reference: Reference = reference.parse().unwrap();
    let (resolved, source) = open(&reference, &Limits::default()).await.unwrap();
    assert_eq!(resolved.config.entrypoint, ["/srv/sub/program"]);
    assert_eq!(resolved.config.cmd, ["-v"]);
    assert!(resolved.config.env.contains(&"A=b c".to_owned()));
    assert_eq!(resolved.config.exposed_ports[0].number, 8080);
    assert_eq!(resolved.config.user.as_deref(), Some("1000:1000"));
    assert_eq!(resolved.config.workdir.as_deref(), Some("/srv"));
    assert_eq!(resolved.config.labels["team"], "shop");
    let root = store(dir).ensure(&resolved, source, None).await.unwrap();
    if let Some(mounted) = Mounted::new(&root.path) {
        assert_eq!(mounted.text("srv/greeting"), "hello");
        assert_eq!(mounted.text("srv/sub/link"), "hello");
        assert_eq!(std::fs::read(mounted.path.join("srv/sub/program")).unwrap(), std::fs::read("/bin/true").unwrap());
    }
    resolved
}

#[tokio::test]
async fn umoci_and_the_archives_that_skopeo_makes_of_it() {
    if !has(&["umoci", "skopeo"]) {
        return;
    }
    let dir = folder();
    let layout = umoci(dir.path());
    let resolved = check(&format!("oci:{layout}:v1"), &dir.path().join("1")).await;
    assert_eq!(check(&format!("oci:{layout}"), &dir.path().join("2")).await.digest, resolved.digest);
    let from = format!("oci:{layout}:v1");
    let archive = dir.path().join("oci.tar").display().to_string();
    run("skopeo", &["--insecure-policy", "copy", "-q", &from, &format!("oci-archive:{archive}:v9")]);
    assert_eq!(check(&format!("oci-archive:{archive}:v9"), &dir.path().join("3")).await.digest, resolved.digest);
    let archive = dir.path().join("docker.tar").display().to_string();
    run("skopeo", &["--insecure-policy", "copy", "-q", &from, &format!("docker-archive:{archive}:shop:1.4")]);
    let docker = check(&format!("docker-archive:{archive}:shop:1.4"), &dir.path().join("4")).await;
    assert_eq!(check(&format!("docker-archive:{archive}"), &dir.path().join("5")).await.digest, docker.digest);
    // Each layer of it is a plain tar, named by its own digest.
    assert!(docker.layers.iter().all(|layer| layer.diff_id == Some(layer.digest)));
    let packed = format!("{archive}.gz");
    std::fs::write(&packed, crate::support::gzip(&std::fs::read(&archive).unwrap())).unwrap();
    assert_eq!(check(&format!("docker-archive:{packed}"), &dir.path().join("6")).await.digest, docker.digest);
    let wrong: Reference = format!("docker-archive:{archive}:shop:9").parse().unwrap();
    let error = open(&wrong, &Limits::default()).await.unwrap_err();
    assert!(error.to_string().contains("shop:1.4"), "{error}");
}

#[tokio::test]
async fn buildah_in_both_formats() {
    if !has(&["buildah"]) || !crate::support::is_root() {
        return;
    }
    let dir = folder();
    let (root, run_root) = (dir.path().join("storage"), dir.path().join("run"));
    let buildah = |arguments: &[&str]| {
        let mut all = vec!["--storage-driver", "vfs", "--root", root.to_str().unwrap()];
        all.extend(["--runroot", run_root.to_str().unwrap()]);
        all.extend(arguments);
        run("buildah", &all).trim().to_owned()
    };
    let content = dir.path().join("content");
    std::fs::create_dir_all(&content).unwrap();
    std::fs::write(content.join("greeting"), "from buildah").unwrap();
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, content.to_str().unwrap(), "/srv"]);
    buildah(&["config", "--entrypoint", r#"["/srv/run"]"#, "--port", "80", "--stop-signal", "SIGQUIT", &container]);
    for (format, kind) in [("oci", "oci"), ("docker", "docker-archive"), ("oci", "oci-archive")] {
        let target = dir.path().join(format!("{kind}-image")).display().to_string();
        let target = format!("{kind}:{target}");
        buildah(&["commit", "-q", "--format", format, &container, &format!("{target}:shop:1")]);
        let tagged = if kind == "docker-archive" { target.clone() } else { format!("{target}:shop:1") };
        let (resolved, source) = open(&tagged.parse().unwrap(), &Limits::default()).await.unwrap();
        assert_eq!(resolved.config.entrypoint, ["/srv/run"]);
        assert_eq!(resolved.config.stop_signal.as_deref(), Some("SIGQUIT"));
        let built = store(&dir.path().join(format!("{kind}-store"))).ensure(&resolved, source, None).await.unwrap();
        if let Some(mounted) = Mounted::new(&built.path) {
            assert_eq!(mounted.text("srv/greeting"), "from buildah");
        }
    }
    buildah(&["rm", &container]);
}
