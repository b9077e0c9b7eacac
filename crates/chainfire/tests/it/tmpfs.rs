//! A disk that is really full: a small tmpfs and a ballast. Needs root.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub struct Tmpfs {
    at: PathBuf,
    bytes: usize,
}

impl Tmpfs {
    pub fn mount(at: &Path, bytes: usize) -> Result<Self, String> {
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
            .map_err(|error| format!("cannot mount a tmpfs: {error}"))?;
        Ok(Self { at: at.to_path_buf(), bytes })
    }

    /// Takes so much of the room.
    pub fn ballast(&self, bytes: usize) {
        std::fs::write(self.at.join("ballast"), vec![1; bytes]).unwrap();
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let written = std::fs::write(self.at.join("ballast"), vec![1; self.bytes]);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull);
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}
