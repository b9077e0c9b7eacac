//! The way of a local image through a project's uploads to a root image.

use std::collections::HashSet;
use std::time::Duration;

use image::{Digest, Error, Limits, Reference, Uploads, package};

use crate::support::{Image, PLATFORM, Tar, folder, store};

#[tokio::test]
async fn a_local_image_is_sent_blob_by_blob_and_built_from_there() {
    let dir = folder();
    let image =
        Image::of(&dir.path().join("image"), &[Tar::new().file("a", "1").done(), Tar::new().file("b", "2").done()]);
    let (resolved, source) = image.open().await.unwrap();
    let uploads = Uploads::open(dir.path().join("uploads"), &Limits::default()).unwrap();
    let blobs = package::blobs(&resolved, &*source).await.unwrap();
    assert_eq!(blobs.len(), 4);
    assert_eq!(blobs.last().unwrap().digest, resolved.digest);
    for blob in &blobs {
        assert!(!uploads.has("prj_1", &blob.digest).unwrap());
        let reader = package::open(blob, &*source).await.unwrap();
        assert_eq!(uploads.put("prj_1", &blob.digest, reader).await.unwrap(), blob.size);
        assert!(uploads.has("prj_1", &blob.digest).unwrap());
        assert!(!uploads.has("prj_2", &blob.digest).unwrap(), "another project must not see it");
    }
    assert_eq!(uploads.bytes("prj_1").unwrap(), blobs.iter().map(|blob| blob.size).sum::<u64>());
    let uploaded = uploads.source("prj_1", resolved.digest).await.unwrap();
    let again = image::resolve(&*uploaded, PLATFORM, &Limits::default()).await.unwrap();
    assert_eq!(again.reference, Reference::Upload(resolved.digest));
    assert_eq!((again.digest, &again.layers), (resolved.digest, &resolved.layers));
    store(dir.path()).ensure(&again, uploaded, None).await.unwrap();
    let Err(error) = uploads.source("prj_2", resolved.digest).await else { panic!("another project's image") };
    assert!(matches!(error, Error::FindImage { .. }), "{error}");
    // A sweep keeps what a manifest in use needs, and what is young.
    let needed = HashSet::from([resolved.digest]);
    assert_eq!(uploads.sweep("prj_1", &needed, Duration::ZERO).unwrap(), 0);
    assert_eq!(uploads.sweep("prj_1", &HashSet::new(), Duration::from_hours(1)).unwrap(), 0);
    assert!(uploads.sweep("prj_1", &HashSet::new(), Duration::ZERO).unwrap() > 0);
    assert_eq!(uploads.bytes("prj_1").unwrap(), 0);
}

#[tokio::test]
async fn wrong_large_and_broken_uploads_leave_nothing() {
    let dir = folder();
    let limits = Limits { compressed_bytes_max: 1000, ..Limits::default() };
    let uploads = Uploads::open(dir.path(), &limits).unwrap();
    let digest = Digest::of(b"right");
    let error = uploads.put("p", &digest, &b"wrong"[..]).await.unwrap_err();
    assert!(matches!(error, Error::VerifyDigest { .. }), "{error}");
    let error = uploads.put("p", &digest, &[0; 1001][..]).await.unwrap_err();
    assert_eq!(error.code(), "image_too_large");
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(&b"rig"[..]),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ]));
    uploads.put("p", &digest, broken).await.unwrap_err();
    assert!(!uploads.has("p", &digest).unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join("p/incoming")).unwrap().count(), 0);
    // What a process left in the middle of one goes at the next open.
    std::fs::write(dir.path().join("p/incoming/blob-stale"), "x").unwrap();
    let uploads = Uploads::open(dir.path(), &limits).unwrap();
    assert!(!dir.path().join("p/incoming").exists());
    assert_eq!(uploads.put("p", &digest, &b"right"[..]).await.unwrap(), 5);
    uploads.remove_project("p").unwrap();
    assert!(!dir.path().join("p").exists());
}

#[tokio::test]
async fn a_project_that_could_be_a_path_is_refused() {
    let dir = folder();
    let uploads = Uploads::open(dir.path().join("uploads"), &Limits::default()).unwrap();
    for project in ["", "..", ".", "a/b", "../x", "a\0b", &"x".repeat(65)] {
        assert!(uploads.put(project, &Digest::of(b"x"), &b"x"[..]).await.is_err(), "{project:?}");
        assert!(uploads.has(project, &Digest::of(b"x")).is_err());
        assert!(uploads.remove_project(project).is_err());
    }
    assert!(dir.path().join("uploads").exists());
}
