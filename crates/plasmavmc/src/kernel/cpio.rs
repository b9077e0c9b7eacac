//! The archive that a kernel unpacks as its first root: cpio in its "newc" form.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

/// An archive under construction. The same calls give the same bytes: no times, no host's numbers.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

impl Archive {
    /// A folder; its parent must have come before. `path` has no leading slash.
    pub fn folder(&mut self, path: &str, permissions: u32) {
        self.entry(path, DIRECTORY | permissions, (0, 0), &[]);
    }

    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, REGULAR | permissions, (0, 0), content);
    }

    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | permissions, (major, minor), &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        use std::io::Write;
        if mode != 0 {
            self.inode += 1;
        }
        let links = if mode & DIRECTORY != 0 && mode & REGULAR == 0 { 2 } else { 1 };
        let length = u32::try_from(content.len()).expect("a file of an initramfs is smaller than 4 GiB");
        let name_length = path.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, time, length, device (2), device of a node (2), length of the name, checksum
        for field in [self.inode, mode, 0, 0, links, 0, length, 0, 0, major, minor, name_length, 0] {
            write!(self.bytes, "{field:08x}").expect("a vector takes every write");
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another program reads what is written here.
    #[tokio::test]
    async fn cpio_reads_the_archive() {
        let mut archive = Archive::default();
        archive.folder("modules", 0o755);
        archive.file("init", 0o755, b"#!x");
        archive.file("modules/order", 0o644, b"one\ntwo\n");
        let bytes = archive.finish();
        match world::process::Run::new("cpio").args(["-t", "-v", "--quiet", "-n"]).input(bytes).output().await {
            Ok(listing) => {
                let listing = String::from_utf8(listing).unwrap();
                let lines: Vec<_> = listing.lines().collect();
                assert_eq!(lines.len(), 3, "{listing}");
                assert!(lines[0].starts_with("drwxr-xr-x   2") && lines[0].ends_with(" modules"), "{listing}");
                assert!(lines[1].starts_with("-rwxr-xr-x") && lines[1].ends_with(" init"), "{listing}");
                assert!(lines[2].contains(" 8 ") && lines[2].ends_with(" modules/order"), "{listing}");
            }
            Err(world::process::Error::Missing { .. }) => println!("skipped: cpio is not installed"),
            Err(error) => panic!("{error}"),
        }
    }
}
