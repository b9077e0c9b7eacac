//! What is refused before any layer is fetched, and how platforms are chosen.

use image::{Digest, Error, Limits, Platform};
use serde_json::json;

use crate::support::{Image, Tar, entry, entry_for, folder, open};

fn layer(text: &str) -> (Vec<u8>, Vec<u8>) {
    let layer = Tar::new().file("name", text).done();
    (layer.clone(), layer)
}

#[tokio::test]
async fn a_platform_is_found_in_nested_indexes_and_a_missing_one_is_named() {
    let dir = folder();
    let image = Image::new(dir.path());
    let (amd, amd_size) = image.manifest("amd64", &[layer("amd64")]);
    let (arm, arm_size) = image.manifest("arm64", &[layer("arm64")]);
    let (s390, s390_size) = image.manifest("s390x", &[layer("s390x")]);
    let mut provenance = entry_for(Digest::of(b"none"), 1, "unknown");
    provenance["platform"]["os"] = "unknown".into();
    provenance["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let inner = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [provenance, entry_for(s390, s390_size, "s390x"), entry_for(arm, arm_size, "arm64"),
                      entry_for(amd, amd_size, "amd64")]});
    let (inner, inner_size) = image.document(&inner);
    let outer = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner, "size": inner_size}]});
    let (outer, outer_size) = image.document(&outer);
    image.index(&[entry(outer, outer_size)]);
    let source = image::open(&image.reference(), &image::Credentials::default()).await.unwrap();
    for (platform, wanted) in [(Platform::LinuxAmd64, amd), (Platform::LinuxArm64, arm)] {
        let resolved = image::resolve(&*source, platform, &Limits::default()).await.unwrap();
        assert_eq!((resolved.digest, resolved.index_digest, resolved.platform), (wanted, Some(outer), platform));
    }
    image.index(&[entry_for(s390, s390_size, "s390x"), entry_for(arm, arm_size, "arm64")]);
    let error = open(&image.reference(), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::PickPlatform { .. }));
    assert_eq!(error.code(), "image_pull_failed");
    assert!(error.to_string().ends_with("has no image for linux/amd64; it has linux/arm64, linux/s390x"), "{error}");
    // One manifest, whose configuration alone tells.
    image.index(&[entry(arm, arm_size)]);
    let error = open(&image.reference(), &Limits::default()).await.unwrap_err();
    assert!(error.to_string().ends_with("it has linux/arm64"), "{error}");
}

#[tokio::test]
async fn indexes_without_end_are_refused() {
    let dir = folder();
    let image = Image::new(dir.path());
    let mut inner = image.manifest("arm64", &[layer("x")]);
    for _ in 0..6 {
        inner = image.document(&json!({"schemaVersion": 2, "manifests": [entry(inner.0, inner.1)]}));
    }
    image.index(&[entry(inner.0, inner.1)]);
    let error = open(&image.reference(), &Limits::default()).await.unwrap_err();
    assert!(error.to_string().contains("indexes within each other"), "{error}");
    let many: Vec<_> = (0..40)
        .map(|n| {
            let (digest, size) = image.manifest("arm64", &[layer(&n.to_string())]);
            entry(digest, size)
        })
        .collect();
    let (digest, size) = image.document(&json!({"schemaVersion": 2, "manifests": many}));
    image.index(&[entry(digest, size)]);
    let error = open(&image.reference(), &Limits::default()).await.unwrap_err();
    assert!(error.to_string().contains("more than 32 documents"), "{error}");
}

#[tokio::test]
async fn limits_hold_before_any_layer_is_read() {
    let dir = folder();
    let image = Image::new(dir.path());
    let (digest, size) = image.manifest("amd64", &[layer("1"), layer("2"), layer("3")]);
    image.index(&[entry(digest, size)]);
    for found in std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let path = found.unwrap().path();
        // The layers are gone: whoever read one would say so.
        if path.metadata().unwrap().len() >= 1024 {
            std::fs::remove_file(path).unwrap();
        }
    }
    let reference = image.reference();
    open(&reference, &Limits::default()).await.unwrap();
    let error = open(&reference, &Limits { layers_max: 2, ..Limits::default() }).await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("image_too_large", "the image has 3 layers, the limit is 2")
    );
    let error = open(&reference, &Limits { compressed_bytes_max: 5000, ..Limits::default() }).await.unwrap_err();
    assert_eq!(error.code(), "image_too_large");
    assert!(error.to_string().contains("the limit is 5000"), "{error}");
}

#[tokio::test]
async fn wrong_documents_are_refused_by_name() {
    let dir = folder();
    let image = Image::new(dir.path());
    let reference = image.reference();
    let config = image.blob(br#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#);
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 62});
    let layer = json!({"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "digest": Digest::of(b""), "size": 0});
    for (document, says) in [
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema version 1 is not 2"),
        (json!({"schemaVersion": 2}), "neither"),
        (json!({"schemaVersion": 2, "config": config, "layers": [layer]}), "helm.chart"),
    ] {
        let (digest, size) = image.document(&document);
        image.index(&[entry(digest, size)]);
        let error = open(&reference, &Limits::default()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.code(), "image_pull_failed");
    }
    // The digest in the index is not the manifest's.
    let (digest, size) = image.manifest("amd64", &[]);
    std::fs::write(dir.path().join("blobs/sha256").join(digest.hex()), b"{}").unwrap();
    image.index(&[entry(digest, size)]);
    let error = open(&reference, &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::VerifyDigest { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_layout_or_tag_says_what_is_there() {
    let dir = folder();
    let image = Image::new(&dir.path().join("image"));
    let mut entries = Vec::new();
    for tag in ["v1", "v2"] {
        let (digest, size) = image.manifest("amd64", &[layer(tag)]);
        let mut entry = entry(digest, size);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        entries.push(entry);
    }
    image.index(&entries);
    let text = image.reference().to_string();
    for (text, says) in [
        (format!("{text}:v3"), "it has the tags v1, v2"),
        (text.clone(), "it holds several images"),
        (format!("oci:{}", dir.path().display()), "has no index.json"),
        ("oci:/nowhere".into(), "is not a folder"),
        ("oci-archive:/nowhere.tar".into(), "does not exist"),
        ("docker-archive:/nowhere.tar".into(), "does not exist"),
        (format!("docker-archive:{}", dir.path().display()), "is not a file"),
        ("docker-archive:/bin/true".into(), "the archive"),
    ] {
        let error = open(&text.parse().unwrap(), &Limits::default()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert_eq!(error.code(), "image_pull_failed");
    }
    let (resolved, _) = open(&format!("{text}:v2").parse().unwrap(), &Limits::default()).await.unwrap();
    assert_eq!(resolved.config.entrypoint, ["/init"]);
}
