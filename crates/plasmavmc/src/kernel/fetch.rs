//! The kernel's package, by name, from the package sources that the host already trusts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use world::process::{self, Run};

use super::{Progress, Step};
use crate::Error;

/// A download of some 30 MB over a slow line.
const DOWNLOAD_DEADLINE: Duration = Duration::from_mins(15);
const INDEX_DEADLINE: Duration = Duration::from_mins(5);

/// Downloads what `package` depends on (the kernel by its full name) into `folder` and unpacks it there. Nothing is
/// installed. The package tool checks the signature chain and the hash.
pub async fn package(folder: &Path, package: &str, progress: Progress<'_>) -> Result<PathBuf, Error> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::KernelArchitecture { arch: std::env::consts::ARCH });
    }
    progress(Step::AskPackages);
    let name = match versioned(package).await? {
        Some(name) => name,
        None => {
            // A fresh machine has no package index yet.
            run("apt-get", INDEX_DEADLINE, ["-q", "update"]).await?;
            versioned(package).await?.ok_or_else(|| Error::KernelPackage { package: package.to_owned() })?
        }
    };
    progress(Step::Download { package: name.clone() });
    let downloads = folder.join("download");
    let unpacked = folder.join("unpacked");
    for path in [&downloads, &unpacked] {
        std::fs::create_dir(path).map_err(|source| Error::KernelFolder { path: path.clone(), source })?;
    }
    // `env -C` because the tool downloads to where it stands. Its own unprivileged user could not write there.
    let place = downloads.to_string_lossy().into_owned();
    let arguments = ["-C", &place, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", &name];
    run("env", DOWNLOAD_DEADLINE, arguments).await?;
    let entries =
        std::fs::read_dir(&downloads).map_err(|source| Error::KernelFolder { path: downloads.clone(), source })?;
    let archive =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.ok_or_else(|| Error::KernelPackage { package: name.clone() })?;
    let (from, to) = (archive.to_string_lossy().into_owned(), unpacked.to_string_lossy().into_owned());
    run("dpkg-deb", DOWNLOAD_DEADLINE, ["-x", &from, &to]).await?;
    Ok(unpacked)
}

/// The kernel package that `package` stands for; `None` when the index does not know it.
async fn versioned(package: &str) -> Result<Option<String>, Error> {
    let shown =
        Run::new("apt-cache").args(["show", "--no-all-versions", package]).deadline(INDEX_DEADLINE).output().await;
    match shown {
        Ok(text) => Ok(dependency(&String::from_utf8_lossy(&text))),
        Err(process::Error::Failed { .. }) => Ok(None),
        Err(source) => Err(Error::KernelFetch { source }),
    }
}

/// The first `linux-image-*` in a `Depends:` line.
fn dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let mut names = depends.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    names.find(|name| name.starts_with("linux-image-") && name.chars().all(allowed)).map(str::to_owned)
}

async fn run<const N: usize>(program: &str, deadline: Duration, arguments: [&str; N]) -> Result<(), Error> {
    let done = Run::new(program).args(arguments).deadline(deadline).output().await;
    done.map(drop).map_err(|source| Error::KernelFetch { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_is_read_from_the_dependencies() {
        let shown =
            "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-18-cloud-amd64 (= 6.1.76-1)\nSize: 1\n";
        assert_eq!(dependency(shown).as_deref(), Some("linux-image-6.1.0-18-cloud-amd64"));
        assert_eq!(dependency("Depends: libc6, linux-image-x;rm\n"), None);
        assert_eq!(dependency("Package: x\n"), None);
    }
}
