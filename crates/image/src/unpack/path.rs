//! A member's name, taken apart. Nothing here asks a file system.

use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};

/// The parts of a path, without `.` and empty ones; none for the root itself.
///
/// An absolute path is one from the image's own root, as builders write it that insert a folder at `/`; the tree has no
/// other root that it could mean. `..` is refused rather than bent: no builder writes it, and two unpackers bend it
/// two ways.
pub fn parts(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    if path.is_empty() {
        return Err("has no name".into());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("has a path of more than {PATH_BYTES_MAX} bytes"));
    }
    if path.contains(&0) {
        return Err("has a NUL in its path".into());
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("has `..` in its path".into()),
            part if part.len() > NAME_BYTES_MAX => {
                return Err(format!("has a name of more than {NAME_BYTES_MAX} bytes"));
            }
            part => parts.push(part),
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err(format!("is more than {DEPTH_MAX} folders deep"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_inside_have_parts() {
        assert_eq!(parts(b"./a//b/./c/").unwrap(), [&b"a"[..], b"b", b"c"]);
        assert_eq!(parts(b"./").unwrap().len(), 0);
        assert_eq!(parts(b"/").unwrap().len(), 0);
        assert_eq!(parts(b"/etc//passwd").unwrap(), [&b"etc"[..], b"passwd"]);
        assert_eq!(parts(b"a..b/..c").unwrap().len(), 2);
        let long = [b'a'; 256];
        let deep = b"a/".repeat(DEPTH_MAX + 1);
        let wide = b"abc/".repeat(1100);
        for wrong in [&b""[..], b"..", b"/../etc", b"a/../../b", b"a/..", b"a\0b", &long, &deep, &wide] {
            assert!(parts(wrong).is_err());
        }
    }
}
