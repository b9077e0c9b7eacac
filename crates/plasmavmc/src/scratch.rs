//! The writable layer of a machine: an empty ext4 file system in a sparse file.
//!
//! One is formatted per size and kept as a template; a machine's own is a copy of the few blocks that hold data. So a
//! start costs milliseconds, and nothing of an earlier machine is ever in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::SeekFrom;
use world::process::Run;

use crate::Error;

const FORMAT_DEADLINE: Duration = Duration::from_mins(2);
/// Copied at a time, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// The template for this size in `folder`, made when it is not there.
pub async fn template(folder: &Path, bytes: u64) -> Result<PathBuf, Error> {
    let failed = |why: String| Error::Scratch { id: "template".to_owned(), why };
    let path = folder.join(format!("scratch-{}m.ext4", bytes >> 20));
    if path.is_file() {
        return Ok(path);
    }
    let error = |source: io::Error| failed(format!("{}: {source}", folder.display()));
    world::file::create_folder(folder, 0o700).map_err(error)?;
    // A name of its own, so that two who want the same size do not meet.
    let temporary = folder.join(format!("making-{}", world::random::hex(8)));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(error)?;
    file.set_len(bytes).map_err(error)?;
    // No journal: the layer does not outlive the boot that wrote it. The file is known to be zeros, so no tables need
    // to be written, now or by the guest.
    let arguments = ["-q", "-F", "-m", "0", "-L", "scratch", "-O", "^has_journal"];
    let format = |extended: &str| {
        let arguments = arguments.iter().map(|&one| one.into()).chain(["-E".into(), extended.into()]);
        let arguments = arguments.chain([temporary.clone().into_os_string()]);
        Run::new("mkfs.ext4").args::<_, std::ffi::OsString>(arguments).deadline(FORMAT_DEADLINE).output()
    };
    let mut done = format("assume_storage_prezeroed=1").await;
    if matches!(done, Err(world::process::Error::Failed { .. })) {
        // Older than 1.46.6.
        done = format("lazy_itable_init=1").await;
    }
    let finish = done.map_err(|source| failed(source.to_string())).and_then(|_| {
        file.sync_all().map_err(error)?;
        fs::rename(&temporary, &path).map_err(error)?;
        world::file::sync_folder(folder).map_err(error)
    });
    if finish.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    finish.map(|()| path)
}

/// Makes `target` a copy of `template`: by reference where the file system can, else of its data alone. An older file
/// of that name is replaced.
pub fn copy(template: &Path, target: &Path) -> io::Result<File> {
    match fs::remove_file(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let from = File::open(template)?;
    let to = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(target)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        copy_data(&from, &to)?;
    }
    Ok(to)
}

/// Makes `to` equal to `from`, holes included.
pub(crate) fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(from.as_fd(), SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from.as_fd(), SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let piece = buffer.len().min((end - at) as usize);
            from.read_exact_at(&mut buffer[..piece], at)?;
            to.write_all_at(&buffer[..piece], at)?;
            at += piece as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn a_copy_is_whole_and_sparse() {
        let folder = tempfile::tempdir().unwrap();
        let template = match template(&folder.path().join("templates"), 1 << 30).await {
            Ok(path) => path,
            Err(error) if error.to_string().contains("not installed") => return println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        };
        let target = folder.path().join("disk");
        fs::write(&target, "what an earlier machine left").unwrap();
        let copied = copy(&template, &target).unwrap();
        let metadata = copied.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert!(metadata.blocks() * 512 < 8 << 20, "{} blocks", metadata.blocks());
        let checked = Run::new("e2fsck").args(["-f", "-n", &target.to_string_lossy()]).output().await;
        assert!(checked.is_ok(), "{checked:?}");
        // Asked again, the template is the same file.
        let inode = fs::metadata(&template).unwrap().ino();
        super::template(&folder.path().join("templates"), 1 << 30).await.unwrap();
        assert_eq!(fs::metadata(&template).unwrap().ino(), inode);
    }
}
