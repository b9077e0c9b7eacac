//! What layers mean: the tree that a guest sees, through the kernel's own EROFS.

use std::os::unix::fs::{FileExt, MetadataExt};

use crate::support::{Image, Mounted, Tar, build, folder, gzip, raw_member, store, sum};

#[tokio::test]
async fn everything_a_layer_says_is_in_the_root_image() {
    let dir = folder();
    let long_name = format!("deep/{}/{}", "a".repeat(200), "b".repeat(250));
    let layer = Tar::new()
        .folder("./", 0o755)
        .folder("etc", 0o750)
        .file_of("etc/shadow", "secret", 0o640, 0, 42)
        .file_of("bin/su", "su", 0o4755, 0, 0)
        .file_of("home/big-ids", "x", 0o600, 4_000_000_000, 70_000)
        .file("empty", "")
        .file("large", vec![7; 1_000_000])
        .symlink("link", "etc/shadow")
        .symlink("far", &format!("/{}", "x/".repeat(1000)))
        .hard_link("etc/shadow-", "etc/shadow")
        .file(&long_name, "long")
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("SCHILY.xattr.user.note", b"\0\xffbinary"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("annotated", "note")
        .done();
    let (_store, root) = build(dir.path(), &[layer]).await.unwrap();
    let Some(mounted) = Mounted::new(&root.path) else { return };
    assert_eq!(mounted.text("etc/shadow"), "secret");
    let shadow = mounted.meta("etc/shadow");
    assert_eq!((shadow.mode() & 0o7777, shadow.gid(), shadow.nlink(), shadow.mtime()), (0o640, 42, 2, 1_600_000_000));
    assert_eq!(shadow.ino(), mounted.meta("etc/shadow-").ino());
    assert_eq!(mounted.meta("etc").mode() & 0o7777, 0o750);
    assert_eq!(mounted.meta("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!((mounted.meta("home/big-ids").uid(), mounted.meta("home/big-ids").gid()), (4_000_000_000, 70_000));
    assert_eq!(mounted.meta("empty").len(), 0);
    assert_eq!(std::fs::read(mounted.path.join("large")).unwrap(), vec![7; 1_000_000]);
    assert_eq!(std::fs::read_link(mounted.path.join("link")).unwrap().to_str(), Some("etc/shadow"));
    assert_eq!(std::fs::read_link(mounted.path.join("far")).unwrap().as_os_str().len(), 2001);
    assert_eq!(mounted.text(&long_name), "long");
    let annotated = mounted.meta("annotated");
    assert_eq!((annotated.mtime(), annotated.mtime_nsec()), (1_234_567_890, 123_456_789));
    let attribute = |name: &str| {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(mounted.path.join("annotated"), name, &mut value).map(|count| value[..count].to_vec())
    };
    assert_eq!(attribute("user.note").unwrap(), b"\0\xffbinary");
    assert_eq!(attribute("security.capability").unwrap().len(), 20);
    assert!(attribute("trusted.overlay.opaque").is_err());
    // The root, three folders in it, and the rest; nothing implied is missing.
    assert_eq!(mounted.meta("").nlink(), 2 + 4);
    assert_eq!(mounted.names("deep").len(), 1);
}

#[tokio::test]
async fn upper_layers_replace_and_remove() {
    let dir = folder();
    let lower = Tar::new()
        .file("a/one", "1")
        .file("a/two", "2")
        .file("b/sub/three", "3")
        .file("c/four", "4")
        .file("d/five", "5")
        .file("kept", "k")
        .symlink("etc", "usr/etc")
        .file("usr/etc/old", "old")
        .file("becomes-folder", "x")
        .file("becomes-file/inner", "x")
        .done();
    let upper = Tar::new()
        .file("a/.wh.one", "")
        // Before the mark that clears the folder: this layer's own entries stay, whatever the order.
        .file("b/new", "n")
        .file("b/.wh..wh..opq", "")
        .file(".wh.c", "")
        .file("d/.wh.five", "")
        .file("d/five", "again")
        .file(".wh.never-was", "")
        .file(".wh..wh.plnk", "")
        .file("etc/new", "through the link")
        .file("becomes-folder/inner", "y")
        .file("kept", "first")
        .file("kept", "last")
        .done();
    // A name cannot lie under a file: the upper layer says a folder first.
    let upper = [Tar::new().folder("becomes-folder", 0o700).done()[..1024 - 512].to_vec(), upper].concat();
    let top = Tar::new().file("becomes-file", "z").hard_link("a/hard", "kept").file(".wh.kept", "").done();
    let (_store, root) = build(dir.path(), &[lower, upper, top]).await.unwrap();
    let Some(mounted) = Mounted::new(&root.path) else { return };
    assert_eq!(mounted.names("a"), ["hard", "two"]);
    assert_eq!(mounted.names("b"), ["new"]);
    assert!(!mounted.has("c") && !mounted.has("kept"));
    assert_eq!(mounted.text("a/hard"), "last");
    assert_eq!(mounted.text("d/five"), "again");
    assert_eq!(mounted.text("usr/etc/new"), "through the link");
    assert_eq!(mounted.names("usr/etc"), ["new", "old"]);
    assert_eq!(mounted.text("becomes-folder/inner"), "y");
    assert_eq!(mounted.text("becomes-file"), "z");
}

#[tokio::test]
async fn an_absolute_name_begins_at_the_images_root() {
    let dir = folder();
    let mark = format!("escaped-{}", std::process::id());
    let path = format!("/tmp/{mark}");
    let layer = Tar::new()
        .raw(b'0', path.as_bytes(), b"", 1, b"x")
        .raw(b'1', b"/hard", path.as_bytes(), 0, b"")
        .symlink("run", "/var/run")
        .raw(b'0', b"run/pid", b"", 1, b"7")
        .done();
    let (_store, root) = build(dir.path(), &[layer]).await.unwrap();
    assert!(!std::path::Path::new(&path).exists());
    let Some(mounted) = Mounted::new(&root.path) else { return };
    assert_eq!(mounted.text(&path[1..]) + &mounted.text("hard") + &mounted.text("var/run/pid"), "xx7");
}

#[tokio::test]
async fn layers_are_plain_gzip_or_zstd() {
    let dir = folder();
    let image = Image::new(&dir.path().join("image"));
    let layers: Vec<(Vec<u8>, Vec<u8>)> = (0..3)
        .map(|n| {
            let plain = Tar::new().file(&format!("file-{n}"), n.to_string().repeat(100_000)).done();
            let blob = match n {
                0 => plain.clone(),
                1 => gzip(&plain),
                _ => zstd::encode_all(&plain[..], 3).unwrap(),
            };
            (blob, plain)
        })
        .collect();
    let (digest, size) = image.manifest("amd64", &layers);
    image.index(&[crate::support::entry(digest, size)]);
    let (resolved, source) = image.open().await.unwrap();
    assert_eq!(resolved.digest, digest);
    let root = store(dir.path()).ensure(&resolved, source, None).await.unwrap();
    let Some(mounted) = Mounted::new(&root.path) else { return };
    for n in 0..3 {
        assert_eq!(mounted.text(&format!("file-{n}")), n.to_string().repeat(100_000));
    }
}

#[tokio::test]
async fn large_folders_are_sorted_and_complete() {
    let dir = folder();
    let mut tar = Tar::new();
    for n in 0..3000 {
        tar = tar.file(&format!("many/{:x}-name-{n}", n * 2_654_435_761_u64 % 4096), n.to_string());
    }
    // Names that sort before the entries for the folder itself.
    tar = tar.file("many/!bang", "b").file("many/-dash", "d").file("many/ space", "s");
    let (_store, root) = build(dir.path(), &[tar.done()]).await.unwrap();
    let Some(mounted) = Mounted::new(&root.path) else { return };
    assert_eq!(mounted.names("many").len(), 3003);
    for n in 0..3000 {
        assert_eq!(mounted.text(&format!("many/{:x}-name-{n}", n * 2_654_435_761_u64 % 4096)), n.to_string());
    }
    assert_eq!(mounted.text("many/!bang") + &mounted.text("many/-dash") + &mounted.text("many/ space"), "bds");
    assert!(!mounted.has("many/absent"));
}

#[tokio::test]
async fn holes_stay_holes() {
    let dir = folder();
    // GNU's old form: two extents in the header.
    let (real, data) = (40_000_000_u64, [vec![1; 512], vec![2; 100]].concat());
    let mut gnu = raw_member(b'S', b"gnu", b"", data.len() as u64, &data);
    gnu[257..265].copy_from_slice(b"ustar  \0");
    let mut put = |at: usize, value: u64| gnu[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    put(386, 0);
    put(398, 512);
    put(410, 30_000_000);
    put(422, 100);
    put(483, real);
    sum(&mut gnu);
    // Pax form 1.0: the map leads the data.
    let mut map = b"1\n20000000\n5\n".to_vec();
    map.resize(512, 0);
    map.extend(b"photo");
    let pax = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax"),
            ("GNU.sparse.realsize", b"30000000"),
        ])
        .file("GNUSparseFile.0/pax", &map);
    // Form 0.1: the map in a record.
    let pax = pax
        .pax(&[("GNU.sparse.size", b"10000000"), ("GNU.sparse.map", b"0,1,9999999,1"), ("GNU.sparse.name", b"old")])
        .file("x", b"ab");
    let (_store, root) = build(dir.path(), &[[gnu, pax.done()].concat()]).await.unwrap();
    let disk = root.path.metadata().unwrap().blocks() * 512;
    assert!(root.bytes > 80_000_000 && disk < 1_000_000, "{} {disk}", root.bytes);
    let Some(mounted) = Mounted::new(&root.path) else { return };
    let at = |name: &str, offset: u64, count: usize| {
        let mut bytes = vec![0; count];
        std::fs::File::open(mounted.path.join(name)).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    };
    assert_eq!(mounted.meta("gnu").len(), real);
    assert_eq!((at("gnu", 0, 2), at("gnu", 512, 1), at("gnu", 30_000_099, 2)), (vec![1, 1], vec![0], vec![2, 0]));
    assert_eq!(mounted.meta("pax").len(), 30_000_000);
    assert_eq!(at("pax", 19_999_999, 7), b"\0photo\0");
    assert_eq!((at("old", 0, 2), at("old", 9_999_999, 1)), (b"a\0".to_vec(), b"b".to_vec()));
}

#[tokio::test]
async fn what_a_later_layer_removed_takes_no_disk_and_leaves_no_trace() {
    let dir = folder();
    let secret = b"a-secret-that-was-removed".repeat(200_000);
    let lower = Tar::new().file("secret", &secret).file("kept", vec![9; 5000]).done();
    let upper = Tar::new().file(".wh.secret", "").done();
    let (_store, root) = build(dir.path(), &[lower, upper]).await.unwrap();
    let bytes = std::fs::read(&root.path).unwrap();
    assert!(!bytes.windows(8).any(|window| window == b"a-secret"));
    assert!(root.path.metadata().unwrap().blocks() * 512 < 1_000_000);
    let Some(mounted) = Mounted::new(&root.path) else { return };
    assert_eq!(std::fs::read(mounted.path.join("kept")).unwrap(), vec![9; 5000]);
}

#[tokio::test]
async fn the_same_layers_give_the_same_bytes() {
    let dir = folder();
    let layers: Vec<Vec<u8>> =
        (0..5).map(|n| Tar::new().file(&format!("{n}"), vec![n; 100_000]).folder("d", 0o755).done()).collect();
    let (_one, first) = build(&dir.path().join("one"), &layers).await.unwrap();
    let (_two, second) = build(&dir.path().join("two"), &layers).await.unwrap();
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(std::fs::read(&first.path).unwrap(), std::fs::read(&second.path).unwrap());
}
