//! Pulling from Debian's docker-registry on loopback, and from servers that misbehave.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use image::{Config, Credentials, Digest, Error, Limits, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Image, Mounted, PLATFORM, Tar, entry_for, folder, has, open, run, store};

const USER: &str = "shop";
const PASSWORD: &str = "s3cret";
/// bcrypt of the password at the lowest cost.
const HTPASSWD: &str = "shop:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    async fn start(dir: &Path, with_login: bool) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let (data, users, config) = (dir.join("registry"), dir.join("htpasswd"), dir.join("registry.yml"));
        let mut text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog: {{disabled: true}}\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        if with_login {
            std::fs::write(&users, HTPASSWD).unwrap();
            text.push_str("auth:\n  htpasswd:\n    realm: shop\n    path: ");
            text.push_str(users.to_str().unwrap());
        }
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, address };
        for _ in 0..600 {
            if tokio::net::TcpStream::connect(&registry.address).await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("docker-registry does not listen on {}", registry.address);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn an_image_is_pushed_by_skopeo_and_pulled_by_tag_and_digest() {
    if !has(&["docker-registry", "skopeo", "umoci"]) {
        return;
    }
    let dir = folder();
    let registry = Registry::start(dir.path(), false).await;
    let layout = crate::sources::umoci(dir.path());
    for (format, tag) in [("oci", "1"), ("v2s2", "2")] {
        let target = format!("docker://{}/team/shop:{tag}", registry.address);
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                "--format",
                format,
                &format!("oci:{layout}:v1"),
                &target,
            ],
        );
        let name = format!("{}/team/shop:{tag}", registry.address);
        let (resolved, source) = open(&name.parse().unwrap(), &Limits::default()).await.unwrap();
        assert_eq!(resolved.reference.to_string(), name);
        assert_eq!(resolved.config.entrypoint, ["/srv/sub/program"]);
        let root = store(&dir.path().join(tag)).ensure(&resolved, source, None).await.unwrap();
        if let Some(mounted) = Mounted::new(&root.path) {
            assert_eq!(mounted.text("srv/greeting"), "hello");
        }
        // The pinned name finds the same image after the tag has moved.
        assert_eq!(resolved.pinned().to_string(), format!("{name}@{}", resolved.digest));
        let (again, _) = open(&resolved.pinned(), &Limits::default()).await.unwrap();
        assert_eq!((again.digest, again.layers), (resolved.digest, resolved.layers));
    }
    let missing = format!("{}/team/shop:nine", registry.address);
    let error = open(&missing.parse().unwrap(), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::FindImage { .. }), "{error}");
    assert_eq!(error.code(), "image_pull_failed");
}

#[tokio::test]
async fn an_index_of_platforms_is_pulled_from_a_registry() {
    if !has(&["docker-registry", "skopeo"]) {
        return;
    }
    let dir = folder();
    let registry = Registry::start(dir.path(), false).await;
    let image = Image::new(&dir.path().join("image"));
    let entries: Vec<_> = ["arm64", "amd64"]
        .into_iter()
        .map(|architecture| {
            let layer = Tar::new().file("architecture", architecture).done();
            let (digest, size) = image.manifest(architecture, &[(crate::support::gzip(&layer), layer)]);
            entry_for(digest, size, architecture)
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries});
    let (digest, size) = image.document(&index);
    image.index(&[serde_json::json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
        "size": size, "annotations": {"org.opencontainers.image.ref.name": "all"}})]);
    let name = format!("{}/all:1", registry.address);
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            "--all",
            "--dest-tls-verify=false",
            &format!("oci:{}:all", image.dir.display()),
            &format!("docker://{name}"),
        ],
    );
    let (resolved, source) = open(&name.parse().unwrap(), &Limits::default()).await.unwrap();
    assert_eq!(resolved.index_digest, Some(digest));
    let root = store(dir.path()).ensure(&resolved, source, None).await.unwrap();
    if let Some(mounted) = Mounted::new(&root.path) {
        assert_eq!(mounted.text("architecture"), "amd64");
    }
}

#[tokio::test]
async fn a_login_comes_from_the_credentials_file() {
    if !has(&["docker-registry", "skopeo", "umoci"]) {
        return;
    }
    let dir = folder();
    let registry = Registry::start(dir.path(), true).await;
    let layout = crate::sources::umoci(dir.path());
    let name = format!("{}/shop:1", registry.address);
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--dest-creds",
            &format!("{USER}:{PASSWORD}"),
            &format!("oci:{layout}:v1"),
            &format!("docker://{name}"),
        ],
    );
    let reference = name.parse().unwrap();
    let file = dir.path().join("config.json");
    let config = Config { credentials_file: Some(file.clone()), ..Config::new(dir.path().join("store")) };
    let store = Store::open(config).unwrap();
    let resolve = async || {
        let source = store.source(&reference).await?;
        image::resolve(&*source, PLATFORM, store.limits()).await.map(|resolved| (resolved, source))
    };
    let write = |password: &str| {
        let auth = base64(&format!("{USER}:{password}"));
        std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.address)).unwrap();
    };
    let error = resolve().await.unwrap_err();
    assert!(matches!(error, Error::Authorize { .. }), "no file: {error}");
    assert!(error.hint().contains("credentials file"));
    write("wrong");
    let error = resolve().await.unwrap_err();
    assert!(matches!(error, Error::Authorize { .. }), "wrong password: {error}");
    write(PASSWORD);
    let (resolved, source) = resolve().await.unwrap();
    store.ensure(&resolved, source, None).await.unwrap();
    std::fs::write(&file, "not a document").unwrap();
    assert!(matches!(resolve().await.unwrap_err(), Error::ReadCredentials { .. }));
}

fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

/// What a misbehaving server says: a head and a body, and whether to hold the line open after it.
struct Said {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    holds: bool,
}

impl Said {
    fn ok(body: &[u8]) -> Self {
        let headers = format!("content-length: {}\r\n", body.len());
        Self { status: "200 OK", headers, body: body.to_vec(), holds: false }
    }

    fn status(status: &'static str, headers: String) -> Self {
        Self { status, headers: format!("{headers}content-length: 0\r\n"), body: Vec::new(), holds: false }
    }
}

/// Answers each request by `answer(request head, number of the request)`. Ends with the runtime of its test.
async fn serve(answer: impl Fn(&str, usize) -> Said + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (answer, count) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, count) = (answer.clone(), count.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let said = answer(&String::from_utf8_lossy(&head), count.fetch_add(1, Ordering::Relaxed));
                let head = format!("HTTP/1.1 {}\r\nconnection: close\r\n{}\r\n", said.status, said.headers);
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&said.body).await;
                if said.holds {
                    tokio::time::sleep(Duration::from_mins(10)).await;
                }
            });
        }
    });
    address
}

/// One image's documents by the end of their address.
fn documents(dir: &Path) -> (Image, Vec<(String, Vec<u8>)>) {
    let image = Image::of(dir, &[Tar::new().file("a", vec![7; 300_000]).done()]);
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut answers = Vec::new();
    for found in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = found.unwrap().path();
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        let bytes = std::fs::read(&path).unwrap();
        if digest == manifest {
            answers.push(("manifests/1".into(), bytes.clone()));
        }
        answers.push((digest, bytes));
    }
    (image, answers)
}

fn find<'a>(answers: &'a [(String, Vec<u8>)], head: &str) -> Option<&'a [u8]> {
    let path = head.split(' ').nth(1)?;
    answers.iter().find(|(end, _)| path.ends_with(end.as_str())).map(|(_, bytes)| bytes.as_slice())
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_asks_for_one() {
    let dir = folder();
    let (_image, answers) = documents(&dir.path().join("image"));
    let address = serve(move |head, _| {
        if head.starts_with("GET /token?") {
            let basic = format!("authorization: Basic {}", base64(&format!("{USER}:{PASSWORD}")));
            let right = head.contains("scope=repository%3Ashop%3Apull") && head.contains("service=reg");
            return if right && head.contains(&basic) {
                Said::ok(br#"{"token":"sesame"}"#)
            } else {
                Said::status("401 Unauthorized", String::new())
            };
        }
        if !head.contains("authorization: Bearer sesame") {
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
            let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\",service=\"reg\"\r\n");
            return Said::status("401 Unauthorized", challenge);
        }
        find(&answers, head).map_or_else(|| Said::status("404 Not Found", String::new()), Said::ok)
    })
    .await;
    let reference = format!("{address}/shop:1").parse().unwrap();
    let credentials = Credentials::default().with(&address, USER, PASSWORD);
    let source = image::open(&reference, &credentials).await.unwrap();
    let resolved = image::resolve(&*source, PLATFORM, &Limits::default()).await.unwrap();
    store(dir.path()).ensure(&resolved, source, None).await.unwrap();
    let source = image::open(&reference, &Credentials::default()).await.unwrap();
    let error = image::resolve(&*source, PLATFORM, &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::Authorize { .. }), "{error}");
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again() {
    let dir = folder();
    let (_image, answers) = documents(&dir.path().join("image"));
    // Each document: first a fault of the server, then a line that breaks in the middle, then the truth.
    let seen = parking_lot::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let address = serve(move |head, _| {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let times = *seen.lock().entry(path).and_modify(|times| *times += 1).or_insert(0);
        let bytes = find(&answers, head).unwrap_or_default();
        match times {
            0 => Said::status("503 Service Unavailable", String::new()),
            1 => Said { body: bytes[..bytes.len() / 2].to_vec(), ..Said::ok(bytes) },
            _ => Said::ok(bytes),
        }
    })
    .await;
    let (resolved, source) = open(&format!("{address}/shop:1").parse().unwrap(), &Limits::default()).await.unwrap();
    let root = store(dir.path()).ensure(&resolved, source, None).await.unwrap();
    assert!(root.bytes > 300_000);
}

#[tokio::test]
async fn answers_without_end_or_sense_are_refused() {
    let dir = folder();
    let (_image, answers) = documents(&dir.path().join("image"));
    let reference = |address: &str| format!("{address}/shop:1").parse().unwrap();
    let address = serve(|_, _| Said { headers: String::new(), ..Said::ok(&vec![b' '; 9 << 20]) }).await;
    let error = open(&reference(&address), &Limits::default()).await.unwrap_err();
    assert_eq!(error.code(), "image_too_large", "{error}");
    let address = serve(|_, _| Said::ok(b"<html>sign in</html>")).await;
    let error = open(&reference(&address), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::ReadManifest { .. }), "{error}");
    let elsewhere = "location: http://registry.example/v2/\r\n".to_owned();
    let address = serve(move |_, _| Said::status("302 Found", elsewhere.clone())).await;
    let error = open(&reference(&address), &Limits::default()).await.unwrap_err();
    assert!(error.to_string().contains("redirected"), "{error}");
    // A manifest by digest that is another.
    let wrong = Digest::of(b"another");
    let manifest = answers.iter().find(|(end, _)| end == "manifests/1").unwrap().1.clone();
    let address = serve(move |_, _| Said::ok(&manifest)).await;
    let error = open(&format!("{address}/shop@{wrong}").parse().unwrap(), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::VerifyDigest { .. }), "{error}");
    // Nobody there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = open(&reference(&format!("127.0.0.1:{port}")), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, Error::Reach { .. }), "{error}");
}

#[tokio::test]
async fn a_line_that_falls_silent_ends_in_a_timeout() {
    let dir = folder();
    let (_image, answers) = documents(&dir.path().join("image"));
    let address = serve(move |head, _| {
        let bytes = find(&answers, head).unwrap_or_default();
        if bytes.len() > 100_000 {
            return Said { body: bytes[..1000].to_vec(), holds: true, ..Said::ok(bytes) };
        }
        Said::ok(bytes)
    })
    .await;
    let limits = Limits { layer_time_max: Duration::from_millis(300), ..Limits::default() };
    let (resolved, source) = open(&format!("{address}/shop:1").parse().unwrap(), &limits).await.unwrap();
    let store = Store::open(Config { limits, ..Config::new(dir.path().join("store")) }).unwrap();
    let error = store.ensure(&resolved, source.clone(), None).await.unwrap_err();
    assert_eq!(error.code(), "image_pull_timeout", "{error}");
    drop(store);
    let limits = Limits { total_time_max: Duration::from_millis(300), ..Limits::default() };
    let store = Store::open(Config { limits, ..Config::new(dir.path().join("store")) }).unwrap();
    let error = store.ensure(&resolved, source, None).await.unwrap_err();
    assert_eq!(error.code(), "image_pull_timeout", "{error}");
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
}
