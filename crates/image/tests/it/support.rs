//! Images written in code, programs run with a deadline, root images looked at through the kernel.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use image::{Config, Credentials, Digest, Error, Limits, Platform, Reference, Resolved, RootImage, Source, Store};

pub const PLATFORM: Platform = Platform::LinuxAmd64;

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// True where `program` can be started; says so where it cannot.
pub fn has(programs: &[&str]) -> bool {
    for program in programs {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
        if !found {
            eprintln!("skipped: {program} is not installed");
            return false;
        }
    }
    true
}

pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: not root");
    }
    is_root
}

/// Runs a program to its end; its output is in the message when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// A tar written by another implementation than the one that reads it.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(size);
        header
    }

    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.file_of(path, contents, 0o644, 0, 0)
    }

    pub fn file_of(mut self, path: &str, contents: impl AsRef<[u8]>, mode: u32, uid: u64, gid: u64) -> Self {
        let contents = contents.as_ref();
        let mut header = Self::header(tar::EntryType::Regular, mode, contents.len() as u64);
        header.set_uid(uid);
        header.set_gid(gid);
        self.0.append_data(&mut header, path, contents).unwrap();
        self
    }

    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, std::io::empty()).unwrap();
        self
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Link, 0o644, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// A member exactly as stated, however wrong.
    pub fn raw(mut self, kind: u8, path: &[u8], link: &[u8], size: u64, data: &[u8]) -> Self {
        self.0.get_mut().extend(raw_member(kind, path, link, size, data));
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn raw_member(kind: u8, path: &[u8], link: &[u8], size: u64, data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..path.len()].copy_from_slice(path);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut block);
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// Writes a header's checksum.
pub fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(plain).unwrap();
    packed.finish().unwrap()
}

/// An image in the OCI layout, written by hand so that it can be wrong where a test wants it.
pub struct Image {
    pub dir: PathBuf,
}

impl Image {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir: dir.to_owned() }
    }

    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        std::fs::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        digest
    }

    /// A manifest over `layers` (blob, plain tar) for `architecture`; its digest and size.
    pub fn manifest(&self, architecture: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> (Digest, u64) {
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, plain)| Digest::of(plain)).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": architecture,
            "config": {"Entrypoint": ["/init"], "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let listed: Vec<_> = layers
            .iter()
            .map(|(blob, _)| {
                let kind = match blob.get(..2) {
                    Some([0x1f, 0x8b]) => "tar+gzip",
                    Some([0x28, 0xb5]) => "tar+zstd",
                    _ => "tar",
                };
                serde_json::json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"),
                    "digest": self.blob(blob), "size": blob.len(),
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": self.blob(&config), "size": config.len()},
            "layers": listed,
        });
        self.document(&manifest)
    }

    pub fn document(&self, document: &serde_json::Value) -> (Digest, u64) {
        let bytes = serde_json::to_vec(document).unwrap();
        (self.blob(&bytes), bytes.len() as u64)
    }

    pub fn index(&self, manifests: &[serde_json::Value]) {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(self.dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }

    /// The common case: one amd64 image of plain layers.
    pub fn of(dir: &Path, layers: &[Vec<u8>]) -> Self {
        let image = Self::new(dir);
        let layers: Vec<_> = layers.iter().map(|layer| (layer.clone(), layer.clone())).collect();
        let (digest, size) = image.manifest("amd64", &layers);
        image.index(&[entry(digest, size)]);
        image
    }

    pub fn reference(&self) -> Reference {
        format!("oci:{}", self.dir.display()).parse().unwrap()
    }

    pub async fn open(&self) -> Result<(Resolved, Arc<dyn Source>), Error> {
        open(&self.reference(), &Limits::default()).await
    }
}

pub fn entry(digest: Digest, size: u64) -> serde_json::Value {
    serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size})
}

pub fn entry_for(digest: Digest, size: u64, architecture: &str) -> serde_json::Value {
    let mut entry = entry(digest, size);
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
    entry
}

pub async fn open(reference: &Reference, limits: &Limits) -> Result<(Resolved, Arc<dyn Source>), Error> {
    let source = image::open(reference, &Credentials::default()).await?;
    let resolved = image::resolve(&*source, PLATFORM, limits).await?;
    Ok((resolved, source))
}

pub fn store(dir: &Path) -> Store {
    Store::open(Config::new(dir.join("store"))).unwrap()
}

/// Layers to a root image in a store under `dir`.
pub async fn build(dir: &Path, layers: &[Vec<u8>]) -> Result<(Store, RootImage), Error> {
    let image = Image::of(&dir.join("image"), layers);
    let (resolved, source) = image.open().await?;
    let store = store(dir);
    let root = store.ensure(&resolved, source, None).await?;
    Ok((store, root))
}

/// A root image mounted by the kernel; unmounted when dropped.
pub struct Mounted {
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// `None`, with the reason printed, where this machine cannot mount.
    pub fn new(image: &Path) -> Option<Self> {
        if !is_root() || !has(&["mount", "umount", "fsck.erofs"]) {
            return None;
        }
        run("fsck.erofs", &["--extract", image.to_str().unwrap()]);
        let folder = folder();
        let path = folder.path().to_owned();
        let mounted =
            Command::new("mount").args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(&path).output().unwrap();
        if !mounted.status.success() {
            eprintln!("skipped: cannot mount: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Self { path, _folder: folder })
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    pub fn meta(&self, name: &str) -> std::fs::Metadata {
        self.path.join(name).symlink_metadata().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn names(&self, name: &str) -> Vec<String> {
        let listing = std::fs::read_dir(self.path.join(name)).unwrap();
        let mut names: Vec<String> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}
