//! The guest's kernel and its first root.
//!
//! ```text
//!   apt-get download -> dpkg-deb -x -> vmlinuz, modules     never installed on the host
//!     vmlinuz  -> ELF            KERNELS/<version>/vmlinux
//!     modules  -> chosen, light  KERNELS/<version>/modules/, with their order
//!     + PID 1  -> cpio           KERNELS/<version>/initramfs-<hash of PID 1>.cpio
//!   KERNELS/current              the version that new machines boot
//! ```
//!
//! Everything is made once and kept; with `current` there, nothing asks the network.

pub mod bzimage;
pub mod cpio;
mod fetch;
pub mod lz4;
pub mod module;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use world::file;

use crate::Error;

/// Debian's kernel for virtual machines; it depends on the newest one by its full name.
pub const PACKAGE: &str = "linux-image-cloud-amd64";
/// Changes when what is made from the same kernel changes, so that older caches are not used.
const FORMAT: u32 = 1;
/// Archives kept per kernel: engines of different builds may share a folder.
const INITRAMFS_KEPT_MAX: usize = 4;

/// A kernel that is ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As the kernel names itself, for example `6.1.0-18-cloud-amd64`.
    pub version: String,
    /// The folder that holds the two files, readable by everyone; nothing in it is secret.
    pub folder: PathBuf,
    /// An ELF image, in `folder`.
    pub image: String,
    /// A cpio archive, in `folder`.
    pub initramfs: String,
}

impl Kernel {
    /// Tells kernels and PID 1s apart: version and initramfs.
    pub fn id(&self) -> String {
        format!("{}/{}", self.version, self.initramfs)
    }
}

/// Where a kernel comes from when none is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// [`PACKAGE`] from the host's own package sources.
    Debian,
    /// A package that was unpacked already: a folder with `boot/vmlinuz-*` and `lib/modules/*`.
    Unpacked(PathBuf),
}

/// What is being done; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    AskPackages,
    Download { package: String },
    Unpack { version: String },
    Initramfs { version: String },
    Probe { seconds_max: u64 },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AskPackages => write!(f, "looking for the guest kernel's package"),
            Step::Download { package } => write!(f, "downloading {package}"),
            Step::Unpack { version } => write!(f, "unpacking kernel {version}"),
            Step::Initramfs { version } => write!(f, "building the initramfs for {version}"),
            Step::Probe { seconds_max } => write!(f, "booting a probe under KVM (at most {seconds_max} s)"),
        }
    }
}

/// Hears of each step as it begins.
pub type Progress<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// True when [`prepare`] on this folder would fetch nothing.
pub fn fetched(folder: &Path) -> bool {
    current(folder).is_some()
}

/// The kernel to boot, made ready as far as it is not. Safe to repeat; a crash in the middle leaves nothing half made
/// under a final name.
pub async fn prepare(folder: &Path, source: &Source, init: &[u8], progress: Progress<'_>) -> Result<Kernel, Error> {
    let made = |source| Error::KernelFolder { path: folder.to_owned(), source };
    file::create_folder(folder, 0o755).map_err(made)?;
    // Engines may share the folder: one fetches, the others find it done.
    let lock = fs::File::create(folder.join("lock")).map_err(made)?;
    let _lock = tokio::task::spawn_blocking(move || flock(&lock, FlockOperation::LockExclusive).map(|()| lock))
        .await
        .map_err(std::io::Error::from)
        .and_then(|locked| locked.map_err(std::io::Error::from))
        .map_err(made)?;
    let version = match current(folder) {
        Some(version) => version,
        None => {
            let scratch = tempfile::Builder::new().prefix("fetch-").tempdir_in(folder).map_err(made)?;
            let unpacked = match source {
                Source::Debian => fetch::package(scratch.path(), PACKAGE, progress).await?,
                Source::Unpacked(path) => path.clone(),
            };
            let target = folder.to_owned();
            let version = version_in(&unpacked)?;
            progress(Step::Unpack { version: version.clone() });
            tokio::task::spawn_blocking(move || keep(&unpacked, &target, &version))
                .await
                .map_err(|error| Error::KernelUnpack { why: error.to_string() })??
        }
    };
    let kernel = Kernel {
        folder: folder.join(&version),
        image: "vmlinux".to_owned(),
        initramfs: format!("initramfs-{}.cpio", &hex(&Sha256::digest(init))[..16]),
        version,
    };
    let path = kernel.folder.join(&kernel.initramfs);
    if !path.is_file() {
        progress(Step::Initramfs { version: kernel.version.clone() });
        let archive = initramfs(&kernel.folder.join("modules"), init).map_err(made)?;
        file::write_atomic(&path, &archive, 0o644).map_err(made)?;
        forget(&kernel.folder);
    }
    Ok(kernel)
}

/// Removes the archives of older PID 1s but the last few. A machine that runs has read its own long ago.
fn forget(folder: &Path) {
    let archive = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let ours = name.strip_prefix("initramfs-").is_some_and(|rest| rest.strip_suffix(".cpio").is_some());
        ours.then_some((entry.metadata().ok()?.modified().ok()?, entry.path()))
    };
    let mut archives: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(archive).collect();
    archives.sort_unstable();
    let surplus = archives.len().saturating_sub(INITRAMFS_KEPT_MAX);
    for (_, path) in archives.drain(..surplus) {
        let _ = fs::remove_file(path);
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The version that `current` names, when all of it is there.
fn current(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("current")).ok()?;
    let (format, version) = text.trim().split_once(' ')?;
    let whole = format == FORMAT.to_string() && is_version(version) && folder.join(version).join("vmlinux").is_file();
    whole.then(|| version.to_owned())
}

/// A version becomes a folder's name.
fn is_version(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(allowed)
}

/// The version of the kernel in an unpacked package; the last in order when there are several.
fn version_in(unpacked: &Path) -> Result<String, Error> {
    let boot = unpacked.join("boot");
    let entries = fs::read_dir(&boot).map_err(|source| Error::KernelFolder { path: boot.clone(), source })?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let versions = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    versions
        .filter(|version| is_version(version))
        .max()
        .ok_or_else(|| Error::KernelUnpack { why: format!("{} holds no vmlinuz-VERSION", boot.display()) })
}

/// Makes `folder/<version>` out of an unpacked package and points `current` at it.
fn keep(unpacked: &Path, folder: &Path, version: &str) -> Result<String, Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::KernelFolder { path, source }
    };
    let packed = unpacked.join("boot").join(format!("vmlinuz-{version}"));
    let image = fs::read(&packed).map_err(at(&packed))?;
    let image =
        bzimage::unpack(&image).map_err(|why| Error::KernelUnpack { why: format!("{}: {why}", packed.display()) })?;
    // On a merged file system the modules may lie below usr.
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path).join(version));
    let modules = modules.iter().find(|path| path.is_dir()).unwrap_or(&modules[0]);
    let chosen = module::choose(modules).map_err(|why| Error::KernelUnpack { why })?;

    let target = folder.join(version);
    let listing: String = chosen.iter().flat_map(|module| [module.name.as_str(), ".ko\n"]).collect();
    file::create_folder(&target.join("modules"), 0o755).map_err(at(&target))?;
    file::create_folder(&target, 0o755).map_err(at(&target))?;
    for module in &chosen {
        let path = target.join("modules").join(format!("{}.ko", module.name));
        file::write_atomic(&path, &module.bytes, 0o644).map_err(at(&path))?;
    }
    file::write_atomic(&target.join("modules/order"), listing.as_bytes(), 0o644).map_err(at(&target))?;
    file::write_atomic(&target.join("vmlinux"), &image, 0o644).map_err(at(&target))?;
    let pointer = format!("{FORMAT} {version}\n");
    file::write_atomic(&folder.join("current"), pointer.as_bytes(), 0o644).map_err(at(folder))?;
    Ok(version.to_owned())
}

/// `/init`, the modules and their order, and the console that PID 1 is started on.
fn initramfs(modules: &Path, init: &[u8]) -> std::io::Result<Vec<u8>> {
    let order = fs::read_to_string(modules.join("order"))?;
    let mut archive = cpio::Archive::default();
    for folder in ["dev", "proc", "sys", "modules"] {
        archive.folder(folder, 0o755);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, init);
    let mut paths = String::new();
    for name in order.lines() {
        archive.file(&format!("modules/{name}"), 0o644, &fs::read(modules.join(name))?);
        paths.push_str("/modules/");
        paths.push_str(name);
        paths.push('\n');
    }
    archive.file("modules/order", 0o644, paths.as_bytes());
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_plain_name() {
        assert!(is_version("6.1.0-18-cloud-amd64"));
        for bad in ["", "..", ".hidden", "a/b", "a b", &"x".repeat(65)] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_folder_without_a_kernel_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Unpacked(folder.path().join("nothing"));
        let error = prepare(&folder.path().join("kernels"), &source, b"init", &|_| ()).await.unwrap_err();
        assert!(matches!(error, Error::KernelFolder { .. }), "{error}");
        fs::create_dir_all(folder.path().join("nothing/boot")).unwrap();
        let error = prepare(&folder.path().join("kernels"), &source, b"init", &|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("vmlinuz-VERSION"), "{error}");
        assert!(!fetched(&folder.path().join("kernels")));
    }
}
