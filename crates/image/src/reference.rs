//! How people name an image, and the one canonical way to write each name.
//!
//! ```text
//! nginx                         -> docker.io/library/nginx:latest
//! ghcr.io/shop/web:1.4          a tag
//! ghcr.io/shop/web@sha256:...   a digest; a tag before it is only for people
//! 127.0.0.1:5000/web:1          plain HTTP, on loopback only
//! oci:DIR[:TAG]                 a folder in the OCI image layout
//! oci-archive:FILE[:TAG]        the same in a tar
//! docker-archive:FILE[:NAME]    what `docker save` writes
//! upload:sha256:...             a manifest uploaded to the project
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, Result};

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_OFFICIAL: &str = "library";
const DEFAULT_TAG: &str = "latest";
const TEXT_BYTES_MAX: usize = 4096;
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// Where an image is. Serialises as its canonical text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Registry(Name),
    /// A folder in the OCI image layout.
    OciDir {
        path: PathBuf,
        tag: Option<String>,
    },
    /// A tar of such a folder; may be compressed.
    OciArchive {
        path: PathBuf,
        tag: Option<String>,
    },
    /// What `docker save` writes; may be compressed. `name` is one of its `RepoTags`.
    DockerArchive {
        path: PathBuf,
        name: Option<String>,
    },
    /// A manifest among a project's uploads.
    Upload(Digest),
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// `HOST` or `HOST:PORT`, in lower case. Docker Hub is `docker.io`.
    pub registry: String,
    /// For example `library/nginx`.
    pub repository: String,
    /// Absent only where there is a digest.
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// True for what only the machine with that file can read; such an image is uploaded first.
    pub fn is_local(&self) -> bool {
        matches!(self, Reference::OciDir { .. } | Reference::OciArchive { .. } | Reference::DockerArchive { .. })
    }

    /// The same image fixed to a digest, where the source can be asked by digest later.
    pub fn pinned(&self, digest: Digest) -> Self {
        match self {
            Reference::Registry(name) => Reference::Registry(Name { digest: Some(digest), ..name.clone() }),
            Reference::Upload(_) => Reference::Upload(digest),
            local => local.clone(),
        }
    }
}

impl Name {
    /// True where plain HTTP is used: the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(host_of(&self.registry))
    }

    /// The part a registry's address is followed by: the digest where there is one, else the tag.
    pub(crate) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.into(),
        }
    }
}

/// The host of `HOST[:PORT]`, without the brackets of an IPv6 address.
pub(crate) fn host_of(registry: &str) -> &str {
    match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    }
}

/// `localhost`, 127.0.0.0/8 and ::1.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem: &str, nearest: String| Error::ParseReference {
            text: text.chars().take(200).collect(),
            problem: problem.into(),
            nearest,
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(refuse("it is longer than 4096 bytes", String::new()));
        }
        if text.trim() != text {
            return Err(refuse("it begins or ends with a space", text.trim().to_owned()));
        }
        if text.is_empty() {
            return Err(refuse("it is empty", "a name and a tag, for example registry.example/shop:1.4".into()));
        }
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            return Err(refuse(&format!("it has the control character {bad:?}"), String::new()));
        }
        if let Some(rest) = text.strip_prefix("upload:") {
            let digest = rest.parse().map_err(|_| {
                refuse("after `upload:` comes a digest", "upload:sha256: and 64 hexadecimal digits".into())
            })?;
            return Ok(Reference::Upload(digest));
        }
        for scheme in ["oci:", "oci-archive:", "docker-archive:"] {
            let Some(rest) = text.strip_prefix(scheme) else { continue };
            // The first colon ends the path, as in other tools; a path with a colon cannot be written.
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) => (path, Some(tag)),
                None => (rest, None),
            };
            let what = if scheme == "oci:" { "DIR" } else { "FILE" };
            if path.is_empty() {
                return Err(refuse("the path is missing", format!("{scheme}{what}[:TAG]")));
            }
            if tag == Some("") {
                return Err(refuse("the tag after the last colon is empty", format!("{scheme}{path}")));
            }
            let path = PathBuf::from(path);
            let tag = tag.map(str::to_owned);
            return Ok(match scheme {
                "oci:" => Reference::OciDir { path, tag },
                "oci-archive:" => Reference::OciArchive { path, tag },
                _ => Reference::DockerArchive { path, name: tag },
            });
        }
        parse_name(text).map(Reference::Registry).map_err(|(problem, nearest)| refuse(&problem, nearest))
    }
}

/// The problem and the nearest right form; the latter may be empty.
type Refusal = (String, String);

fn parse_name(text: &str) -> std::result::Result<Name, Refusal> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err((format!("it begins with `{scheme}://`"), rest.trim_end_matches('/').to_owned()));
    }
    if text.starts_with(['/', '.']) || text.starts_with('~') {
        return Err(("it looks like a path".into(), format!("oci:{text} for a folder, or oci-archive:{text}")));
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => {
            let digest = digest.parse().map_err(|_| {
                ("after `@` comes a digest".to_owned(), format!("{name}@sha256: and 64 hexadecimal digits"))
            })?;
            (name, Some(digest))
        }
        None => (text, None),
    };
    let (path, tag) = split_tag(name);
    if tag == Some("") {
        return Err(("the tag is empty".into(), format!("{path}:{DEFAULT_TAG}")));
    }
    if let Some(tag) = tag {
        check_tag(tag).map_err(|problem| (problem, format!("{path}:{}", mend(tag))))?;
    }
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            check_registry(first).map_err(|problem| (problem, String::new()))?;
            (first.to_ascii_lowercase(), rest.to_owned())
        }
        _ => (DOCKER_HUB.to_owned(), path.to_owned()),
    };
    let registry = match registry.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB.to_owned(),
        _ => registry,
    };
    let repository = if registry == DOCKER_HUB && !repository.contains('/') {
        format!("{DOCKER_HUB_OFFICIAL}/{repository}")
    } else {
        repository
    };
    check_repository(&repository).map_err(|problem| {
        let mended = text.to_ascii_lowercase().replace(' ', "-");
        (problem, if mended == text { String::new() } else { mended })
    })?;
    let tag = match (tag, digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Name { registry, repository, tag, digest })
}

/// A colon after the last slash begins a tag; one before it belongs to a port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => (&name[..colon], Some(&name[colon + 1..])),
        _ => (name, None),
    }
}

fn check_registry(registry: &str) -> std::result::Result<(), String> {
    let host = host_of(registry);
    let port = if let Some(rest) = registry.strip_prefix('[') {
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("`{registry}` is not a host"));
        }
        rest[host.len()..].strip_prefix(']').ok_or_else(|| format!("`{registry}` lacks a `]`"))?
    } else {
        let sound = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !host.split('.').all(sound) {
            return Err(format!("`{registry}` is not a host"));
        }
        &registry[host.len()..]
    };
    if port.is_empty() {
        return Ok(());
    }
    let number = port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
    number.map(|_| ()).ok_or_else(|| format!("`{registry}` has no port from 1 to 65535 after the colon"))
}

fn check_repository(repository: &str) -> std::result::Result<(), String> {
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err("the name is longer than 255 bytes".into());
    }
    for part in repository.split('/') {
        if part.is_empty() {
            return Err("the name has an empty part".into());
        }
        if let Some(bad) = part.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
            return Err(if bad.is_ascii_uppercase() {
                "names are in lower case".into()
            } else {
                format!("the name has the character {bad:?}")
            });
        }
        let edge = |c: char| matches!(c, '.' | '_' | '-');
        if part.starts_with(edge) || part.ends_with(edge) || part.contains("..") {
            return Err(format!("`{part}` begins or ends with a separator, or has two dots in a row"));
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> std::result::Result<(), String> {
    if tag.len() > TAG_BYTES_MAX {
        return Err("the tag is longer than 128 bytes".into());
    }
    if tag.starts_with(['.', '-']) {
        return Err("a tag begins with a letter, a digit or `_`".into());
    }
    match tag.chars().find(|c| !is_tag_char(*c)) {
        Some(bad) => Err(format!("the tag has the character {bad:?}")),
        None => Ok(()),
    }
}

fn is_tag_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn mend(tag: &str) -> String {
    let tag: String = tag.chars().map(|c| if is_tag_char(c) { c } else { '-' }).take(TAG_BYTES_MAX).collect();
    let tag = tag.trim_start_matches(['.', '-']);
    if tag.is_empty() { DEFAULT_TAG.into() } else { tag.into() }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, tag) = match self {
            Reference::Registry(name) => return name.fmt(f),
            Reference::Upload(digest) => return write!(f, "upload:{digest}"),
            Reference::OciDir { path, tag } => ("oci", path, tag),
            Reference::OciArchive { path, tag } => ("oci-archive", path, tag),
            Reference::DockerArchive { path, name } => ("docker-archive", path, name),
        };
        write!(f, "{scheme}:{}", path.display())?;
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        Ok(())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn each_name_has_one_canonical_text() {
        let digest = format!("@sha256:{HEX}");
        for (text, canonical) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.25", "docker.io/library/nginx:1.25".to_owned()),
            ("shop/web", "docker.io/shop/web:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("Registry.Example/shop:1.4", "registry.example/shop:1.4".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("127.0.0.1:5000/x:tag", "127.0.0.1:5000/x:tag".to_owned()),
            ("[::1]:5000/a/b", "[::1]:5000/a/b:latest".to_owned()),
            (&format!("nginx{digest}"), format!("docker.io/library/nginx{digest}")),
            (&format!("ghcr.io/a/b:1{digest}"), format!("ghcr.io/a/b:1{digest}")),
            ("oci:/srv/image", "oci:/srv/image".to_owned()),
            ("oci:image:v1", "oci:image:v1".to_owned()),
            ("oci-archive:a.tar:v1", "oci-archive:a.tar:v1".to_owned()),
            ("docker-archive:a.tar:shop:1.4", "docker-archive:a.tar:shop:1.4".to_owned()),
            (&format!("upload:sha256:{HEX}"), format!("upload:sha256:{HEX}")),
        ] {
            let parsed: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), canonical);
            assert_eq!(canonical.parse::<Reference>().unwrap(), parsed);
        }
    }

    #[test]
    fn a_wrong_name_says_what_is_wrong_and_the_nearest_right_form() {
        for (text, problem, nearest) in [
            ("", "empty", "registry.example/shop:1.4"),
            (" nginx", "space", "nginx"),
            ("https://registry.example/shop", "https://", "registry.example/shop"),
            ("docker://nginx", "docker://", "nginx"),
            ("Shop", "lower case", "shop"),
            ("shop:", "tag is empty", "shop:latest"),
            ("shop:a+b", "'+'", "shop:a-b"),
            ("shop:-x", "begins with", "shop:x"),
            ("shop@sha256:12", "digest", "shop@sha256:"),
            ("./image", "path", "oci:./image"),
            ("/srv/image", "path", "oci:/srv/image"),
            ("oci:", "path is missing", "oci:DIR"),
            ("oci:dir:", "empty", "oci:dir"),
            ("upload:x", "digest", "upload:sha256:"),
            ("host.example:0/x", "port", ""),
            ("host.example:99999/x", "port", ""),
            ("ho_st.example/x", "host", ""),
            ("a//b", "empty part", ""),
            ("a/-b", "separator", ""),
            ("a/../b", "separator", ""),
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(error.to_string().contains(problem), "{text}: {error}");
            assert!(error.hint().contains(nearest), "{text}: {}", error.hint());
            assert_eq!(error.code(), "image_pull_failed");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for (text, loopback) in [
            ("127.0.0.1:5000/x", true),
            ("127.8.8.8/x", true),
            ("[::1]:5000/x", true),
            ("localhost:5000/x", true),
            ("10.0.0.1:5000/x", false),
            ("127.0.0.1.example/x", false),
            ("localhost.example/x", false),
        ] {
            let Reference::Registry(name) = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!(name.is_loopback(), loopback, "{text}");
        }
    }
}
