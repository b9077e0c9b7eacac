//! The last good configuration on disk.
//!
//! One JSON file, `ingress.json`, with the number of its format. It is replaced whole, and an accepted configuration
//! is durable before it is served.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::{Desired, validate};
use crate::error::Error;

const FILE: &str = "ingress.json";
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    desired: &'a Desired,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    desired: Desired,
}

pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Makes `desired` the one that [`load`] returns. Blocks on the disk.
pub fn save(state_dir: &Path, desired: &Desired) -> Result<(), Error> {
    let path = path(state_dir);
    let bytes = serde_json::to_vec(&Written { format: FORMAT, desired })
        .map_err(|error| Error::Persist { path: path.clone(), source: error.into() })?;
    world::file::write_atomic(&path, &bytes, 0o600).map_err(|source| Error::Persist { path, source })
}

/// The last saved configuration; `None` where there is none. Blocks on the disk.
///
/// A damaged file is moved aside and counts as none: the control plane sends the configuration again, and a node
/// whose ingress does not start would serve nobody. A file of a newer format is an error: it is good, but not for us.
pub fn load(state_dir: &Path) -> Result<Option<Desired>, Error> {
    let path = path(state_dir);
    let fault = |reason: String| Error::Load { path: path.clone(), reason };
    world::file::create_folder(state_dir, 0o700).map_err(|error| fault(error.to_string()))?;
    let Some(bytes) = world::file::read_optional(&path).map_err(|error| fault(error.to_string()))? else {
        return Ok(None);
    };
    match parse(&bytes) {
        Ok(desired) => Ok(Some(desired)),
        Err(Damage::Newer(format)) => Err(fault(format!("its format is {format}, this version knows {FORMAT}"))),
        Err(Damage::Broken(reason)) => {
            let aside = path.with_extension("json.damaged");
            fs::rename(&path, &aside).map_err(|error| fault(error.to_string()))?;
            tracing::error!(file = %path.display(), aside = %aside.display(), %reason, "damaged ingress configuration moved aside");
            Ok(None)
        }
    }
}

enum Damage {
    Newer(u32),
    Broken(String),
}

fn parse(bytes: &[u8]) -> Result<Desired, Damage> {
    let broken = |error: serde_json::Error| Damage::Broken(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(broken)?;
    if head.format > FORMAT {
        return Err(Damage::Newer(head.format));
    }
    let read: Read = serde_json::from_slice(bytes).map_err(broken)?;
    // The listeners may have moved since; a port that clashes now shows as that route's problem.
    validate(&read.desired, &[]).map_err(|error| Damage::Broken(error.to_string()))?;
    Ok(read.desired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Backend, Mode, Route};

    /// A file as format 1 wrote it. It must be readable for as long as format 1 is.
    const GOLDEN: &str = r#"{"format":1,"desired":{"generation":7,"routes":[{"id":"route_1","mode":{"http":{"host":"web-prod.vt.localhost"}},"backends":[{"id":"vm_1","addr":"10.0.0.2:8080"},{"id":"vm_2","addr":"[fd00::2]:8080"}]},{"id":"route_2","mode":{"tls":{"host":"a.test"}},"backends":[]},{"id":"route_3","mode":{"tcp":{"port":5432}},"backends":[]}]}}"#;

    fn golden() -> Desired {
        let route = |id: &str, mode, backends| Route { id: id.into(), mode, backends, asleep: Vec::new() };
        let backend = |id: &str, addr: &str| Backend { id: id.into(), addr: addr.parse().unwrap() };
        let backends = vec![backend("vm_1", "10.0.0.2:8080"), backend("vm_2", "[fd00::2]:8080")];
        Desired {
            generation: 7,
            routes: vec![
                route("route_1", Mode::Http { host: "web-prod.vt.localhost".into() }, backends),
                route("route_2", Mode::Tls { host: "a.test".into() }, vec![]),
                route("route_3", Mode::Tcp { port: 5432 }, vec![]),
            ],
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_has_the_golden_form() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), None);
        save(folder.path(), &golden()).unwrap();
        assert_eq!(fs::read_to_string(path(folder.path())).unwrap(), GOLDEN);
        assert_eq!(load(folder.path()).unwrap(), Some(golden()));
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "{", r#"{"format":1}"#, &GOLDEN.replace("a.test", "A.TEST"), &GOLDEN.replace("5432", "25")] {
            fs::write(path(folder.path()), bad).unwrap();
            assert_eq!(load(folder.path()).unwrap(), None, "{bad}");
            assert_eq!(fs::read_to_string(folder.path().join("ingress.json.damaged")).unwrap(), bad);
            assert!(!path(folder.path()).exists());
        }
        fs::write(path(folder.path()), r#"{"format":2,"anything":[]}"#).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert_eq!(error.code(), "ingress_load_failed");
        assert!(path(folder.path()).exists());
    }
}
