//! Archives made to harm: each is refused by name, and nothing of it is left.

use std::time::Duration;

use image::{Config, Error, Limits, Store};

use crate::support::{Image, Tar, folder, gzip, open, raw_member, sum};

struct Case {
    name: &'static str,
    layers: Vec<Vec<u8>>,
    code: &'static str,
    /// What the message must say.
    says: &'static str,
}

fn case(name: &'static str, layer: Vec<u8>, says: &'static str) -> Case {
    Case { name, layers: vec![layer], code: "image_layer_invalid", says }
}

fn numbered(field: std::ops::Range<usize>, text: &[u8]) -> Vec<u8> {
    let mut block = raw_member(b'0', b"file", b"", 0, b"");
    block[field.start..field.start + text.len()].copy_from_slice(text);
    sum(&mut block);
    block
}

pub fn corpus() -> Vec<Vec<u8>> {
    cases().into_iter().flat_map(|case| case.layers).collect()
}

fn cases() -> Vec<Case> {
    let link = |path: &str, target: &str| Tar::new().symlink(path, target);
    let file = |path: &[u8]| raw_member(b'0', path, b"", 1, b"x");
    vec![
        case("parent", file(b"../escaped"), "`../escaped` has `..`"),
        case("parent within", file(b"a/../../escaped"), "has `..`"),
        case("parent that stays", file(b"a/../b"), "has `..`"),
        case("no name", file(b""), "has no name"),
        case("root is a file", file(b"."), "root"),
        case("parent in a long name", [raw_member(b'L', b"x", b"", 11, b"../escaped\0"), file(b"x")].concat(), "`..`"),
        case("parent in pax", Tar::new().pax(&[("path", b"../escaped")]).file("x", "x").done(), "`..`"),
        case("NUL in pax", Tar::new().pax(&[("path", b"a\0b")]).file("x", "x").done(), "NUL"),
        case(
            "through a link up",
            link("out", "../../..").raw(b'0', b"out/escaped", b"", 1, b"x").done(),
            "symbolic link that leaves the root",
        ),
        case(
            "through two links up",
            link("a", "b/../..").folder("b", 0o755).raw(b'0', b"a/escaped", b"", 1, b"x").done(),
            "leaves the root",
        ),
        Case {
            name: "through a lower layer's link up",
            layers: vec![link("out", "../..").done(), file(b"out/escaped")],
            code: "image_layer_invalid",
            says: "leaves the root",
        },
        case("links in a circle", link("a", "b").symlink("b", "a").raw(b'0', b"a/x", b"", 0, b"").done(), "too many"),
        case("under a file", Tar::new().file("a", "x").file("a/b", "x").done(), "`a`, which is not a folder"),
        case("link without target", raw_member(b'2', b"a", b"", 0, b""), "impossible target"),
        case("hard link up", raw_member(b'1', b"a", b"../../etc/passwd", 0, b""), "target that has `..`"),
        case("hard link to nothing", raw_member(b'1', b"a", b"missing", 0, b""), "`missing`, which is not there"),
        case("hard link to a folder", Tar::new().folder("d", 0o755).hard_link("a", "d").done(), "a folder"),
        case("hard link to the root", raw_member(b'1', b"a", b"./", 0, b""), "the root"),
        case(
            "hard link through a link up",
            link("out", "..").raw(b'1', b"a", b"out/etc/passwd", 0, b"").done(),
            "leaves the root",
        ),
        case("hard link to itself", raw_member(b'1', b"a", b"a", 0, b""), "not there"),
        case("character device", raw_member(b'3', b"dev/mem", b"", 0, b""), "`dev/mem` is a device"),
        case("block device", raw_member(b'4', b"dev/sda", b"", 0, b""), "`dev/sda` is a device"),
        case("pipe", raw_member(b'6', b"pipe", b"", 0, b""), "named pipe"),
        case("unknown type", raw_member(b'Z', b"z", b"", 0, b""), "unknown type 'Z'"),
        case("empty whiteout", file(b".wh."), "removes nothing"),
        case("whiteout of the parent", file(b"a/.wh..."), "removes nothing"),
        case("long name part", Tar::new().pax(&[("path", &[b'n'; 256])]).file("x", "").done(), "more than 255 bytes"),
        case("long path", Tar::new().pax(&[("path", &b"ab/".repeat(2000))]).file("x", "").done(), "4096"),
        case("deep path", Tar::new().pax(&[("path", &b"a/".repeat(300))]).file("x", "").done(), "256 folders deep"),
        case("cut off in a file", raw_member(b'0', b"file", b"", 4096, b"x")[..1000].to_vec(), "`file` is cut off"),
        case("cut off in a header", file(b"a")[..300].to_vec(), "is cut off"),
        case("cut off before a second header", [file(b"a"), file(b"b")[..100].to_vec()].concat(), "is cut off"),
        case("cut off in a long name", raw_member(b'L', b"x", b"", 600, b"y")[..800].to_vec(), "is cut off"),
        case(
            "wrong checksum",
            {
                let mut one = file(b"a");
                one[0] = b'b';
                one
            },
            "wrong checksum",
        ),
        case("noise", vec![0xa5; 2048], "checksum"),
        case("after the end", [vec![0; 512], file(b"a")].concat(), "goes on after its end"),
        case("negative size", numbered(124..136, &[0xff; 12]), "negative size"),
        case("unreadable size", numbered(124..136, b"0000000009\0\0"), "unreadable size"),
        case("owner out of range", numbered(108..116, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "owner out of range"),
        case("large extension", raw_member(b'x', b"x", b"", 1 << 30, b""), "too large"),
        case("large long name", raw_member(b'L', b"x", b"", 1 << 32, b""), "too large"),
        case("many extensions", raw_member(b'L', b"x", b"", 1, b"y").repeat(50), "too many extensions"),
        case("pax length", raw_member(b'x', b"x", b"", 10, b"999 path=a"), "wrong length"),
        case("pax size", Tar::new().pax(&[("size", b"-1")]).file("x", "").done(), "negative size"),
        case("pax number", Tar::new().pax(&[("uid", b"me")]).file("x", "").done(), "unreadable number"),
        case(
            "attributes",
            Tar::new().pax(&[("SCHILY.xattr.user.x", &vec![b'x'; 70_000])]).file("x", "").done(),
            "extended attributes",
        ),
        case(
            "holes out of order",
            Tar::new().pax(&[("GNU.sparse.map", b"9,1,0,1"), ("GNU.sparse.size", b"20")]).file("x", "ab").done(),
            "out of order",
        ),
        case(
            "holes beyond the end",
            Tar::new().pax(&[("GNU.sparse.map", b"0,2"), ("GNU.sparse.size", b"1")]).file("x", "ab").done(),
            "does not fit",
        ),
        case(
            "holes that overflow",
            Tar::new()
                .pax(&[("GNU.sparse.map", b"9223372036854775807,9223372036854775807"), ("GNU.sparse.size", b"1")])
                .file("x", "ab")
                .done(),
            "does not fit",
        ),
        case(
            "broken gzip",
            {
                let mut one = gzip(&file(b"a"));
                one.truncate(20);
                one
            },
            "",
        ),
        case("broken zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff, 0xff], ""),
        Case {
            name: "size beyond the limit",
            layers: vec![raw_member(b'0', b"huge", b"", 0o7_777_777_777, b"")],
            code: "image_too_large",
            says: "the root image",
        },
        Case {
            name: "impossible size",
            layers: vec![numbered(124..136, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
            code: "image_layer_invalid",
            says: "impossible size",
        },
        Case {
            name: "holes beyond the limit",
            layers: vec![
                Tar::new()
                    .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1099511627776")])
                    .file("x", "a")
                    .done(),
            ],
            code: "image_too_large",
            says: "the root image",
        },
        Case {
            name: "bomb of zeros after the end",
            layers: vec![gzip(&vec![0; 80 << 20])],
            code: "image_too_large",
            says: "unpacked",
        },
        Case {
            name: "bomb of one file",
            layers: vec![gzip(&raw_member(b'0', b"zeros", b"", 5 << 20, &vec![0; 5 << 20]))],
            code: "image_too_large",
            says: "the root image",
        },
        Case {
            name: "bomb of replaced files",
            layers: vec![gzip(&raw_member(b'0', b"zeros", b"", 1 << 20, &vec![0; 1 << 20]).repeat(6))],
            code: "image_too_large",
            says: "the root image",
        },
        Case {
            name: "too many members",
            layers: vec![gzip(&raw_member(b'5', b"d", b"", 0, b"").repeat(2001))],
            code: "image_too_large",
            says: "2001 members, the limit is 2000",
        },
    ]
}

fn limits() -> Limits {
    Limits { root_bytes_max: 4 << 20, entries_max: 2000, ..Limits::default() }
}

#[tokio::test]
async fn every_hostile_archive_is_refused_and_leaves_nothing() {
    let dir = folder();
    let store = Store::open(Config { limits: limits(), ..Config::new(dir.path().join("store")) }).unwrap();
    for (number, case) in cases().into_iter().enumerate() {
        let image = Image::new(&dir.path().join(format!("image-{number}")));
        // Hostile images say nothing honest of their plain bytes either, so the unpacker has to find the fault.
        let layers: Vec<_> = case.layers.iter().map(|layer| (layer.clone(), plain(layer))).collect();
        let (digest, size) = image.manifest("amd64", &layers);
        image.index(&[crate::support::entry(digest, size)]);
        let (resolved, source) = image.open().await.unwrap();
        let Err(error) = store.ensure(&resolved, source, None).await else { panic!("{}: it was taken", case.name) };
        assert_eq!(error.code(), case.code, "{}: {error}", case.name);
        assert!(error.to_string().contains(case.says), "{}: {error}", case.name);
        assert!(!error.hint().is_empty());
        if let Error::ApplyMember { layer, .. } = &error {
            assert!(layer.starts_with("sha256:"), "{}: {layer}", case.name);
        }
        let left: Vec<_> = std::fs::read_dir(dir.path().join("store/tmp")).unwrap().collect();
        assert!(left.is_empty(), "{}: {left:?}", case.name);
    }
    assert_eq!(store.built(), 0);
    assert!(store.list().is_empty());
    for stray in ["escaped", "../escaped", "store/escaped", "store/tmp/escaped", "store/roots/escaped"] {
        assert!(!dir.path().join(stray).exists(), "{stray}");
    }
}

fn plain(layer: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut plain = Vec::new();
    if layer.starts_with(&[0x1f, 0x8b]) && flate2::read::GzDecoder::new(layer).read_to_end(&mut plain).is_ok() {
        return plain;
    }
    layer.to_vec()
}

#[tokio::test]
async fn other_bytes_than_the_configuration_names_are_refused() {
    let dir = folder();
    let image = Image::new(&dir.path().join("image"));
    let (layer, other) = (Tar::new().file("a", "1").done(), Tar::new().file("a", "2").done());
    let (digest, size) = image.manifest("amd64", &[(layer, other)]);
    image.index(&[crate::support::entry(digest, size)]);
    let (resolved, source) = image.open().await.unwrap();
    let error = crate::support::store(dir.path()).ensure(&resolved, source, None).await.unwrap_err();
    assert!(matches!(error, Error::VerifyDigest { .. }), "{error}");
}

#[tokio::test]
async fn a_changed_or_missing_layer_is_refused() {
    let dir = folder();
    let layer = Tar::new().file("a", "1").done();
    let image = Image::of(&dir.path().join("image"), std::slice::from_ref(&layer));
    let (resolved, source) = image.open().await.unwrap();
    let path = image.dir.join("blobs/sha256").join(resolved.layers[0].digest.hex());
    let limits = Limits { layer_time_max: Duration::from_mins(1), ..Limits::default() };
    let store = Store::open(Config { limits: limits.clone(), ..Config::new(dir.path().join("store")) }).unwrap();
    let mut changed = layer.clone();
    changed[600] ^= 1;
    for (bytes, says) in
        [(changed, "has digest"), (layer[..512].to_vec(), "has 512 bytes"), ([&layer[..], b"x"].concat(), "bytes, not")]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = store.ensure(&resolved, source.clone(), None).await.unwrap_err();
        assert_eq!(error.code(), "image_pull_failed");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("when unpacked"), "it was not found before it was unpacked: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = store.ensure(&resolved, source.clone(), None).await.unwrap_err();
    assert!(error.to_string().contains("lacks the blob"), "{error}");
    std::fs::write(&path, layer).unwrap();
    store.ensure(&resolved, source, None).await.unwrap();
    let reopened = open(&image.reference(), &limits).await.unwrap();
    assert_eq!(reopened.0, resolved);
}
