//! The documents of an image: manifest, index, configuration. Of the OCI image specification 1.1 and of Docker's
//! image manifest version 2, schema 2; read leniently where the two differ, and never trusted for a size or a digest
//! that has not been checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYERS: [&str; 3] = [
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// A blob named by a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformField {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
}

pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Tells a manifest from an index by what it holds, since the media type is optional in both.
pub fn parse(what: &str, bytes: &[u8]) -> Result<Document> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
    }
    let refuse = |problem: String| Error::ReadManifest { what: what.into(), problem };
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    if shape.schema_version != 2 {
        return Err(refuse(format!("schema version {} is not 2", shape.schema_version)));
    }
    match (shape.manifests.is_some(), shape.layers.is_some()) {
        (true, false) => serde_json::from_slice(bytes).map(Document::Index).map_err(|error| refuse(error.to_string())),
        (false, true) => {
            serde_json::from_slice(bytes).map(Document::Manifest).map_err(|error| refuse(error.to_string()))
        }
        (true, true) => Err(refuse("it is both an index and a manifest".into())),
        (false, false) => Err(refuse("it has neither `manifests` nor `layers`".into())),
    }
}

/// Refuses what is not a tar of a Linux layer: artifacts of other kinds and layers that live elsewhere.
pub fn check_layer_type(what: &str, media_type: &str) -> Result<()> {
    if [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD].contains(&media_type) || DOCKER_LAYERS.contains(&media_type) {
        return Ok(());
    }
    let media_type: String = media_type.chars().take(100).collect();
    Err(Error::ReadManifest { what: what.into(), problem: format!("it has a layer of type `{media_type}`") })
}

/// How an image wants to be run. Every list and map may be empty, every text may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `KEY=VALUE`, in the image's order.
    #[serde(default)]
    pub env: Vec<String>,
    /// `USER`, `USER:GROUP`, names or numbers.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub workdir: Option<String>,
    /// Sorted, unique.
    #[serde(default)]
    pub exposed_ports: Vec<ExposedPort>,
    /// For example `SIGQUIT` or `3`.
    #[serde(default)]
    pub stop_signal: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// The configuration document as far as it is used.
pub struct ConfigDocument {
    pub os: String,
    pub architecture: String,
    pub config: ImageConfig,
    /// Digests of the layers before compression, in order. Empty in documents that do not say.
    pub diff_ids: Vec<Digest>,
}

pub fn parse_config(what: &str, bytes: &[u8]) -> Result<ConfigDocument> {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(default)]
        os: Option<String>,
        #[serde(default)]
        architecture: Option<String>,
        #[serde(default)]
        config: Option<Inner>,
        #[serde(default)]
        rootfs: Option<RootFs>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Option<Vec<Digest>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inner {
        #[serde(default)]
        entrypoint: Option<Vec<String>>,
        #[serde(default)]
        cmd: Option<Vec<String>>,
        #[serde(default)]
        env: Option<Vec<String>>,
        #[serde(default)]
        user: Option<String>,
        #[serde(default)]
        working_dir: Option<String>,
        #[serde(default)]
        exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
        #[serde(default)]
        stop_signal: Option<String>,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
    }
    let outer: Outer = serde_json::from_slice(bytes)
        .map_err(|error| Error::ReadManifest { what: what.into(), problem: error.to_string() })?;
    let inner = outer.config.unwrap_or_default();
    let present = |text: Option<String>| text.filter(|text| !text.is_empty());
    let mut exposed_ports: Vec<ExposedPort> =
        inner.exposed_ports.unwrap_or_default().keys().filter_map(|text| parse_port(text)).collect();
    exposed_ports.sort();
    exposed_ports.dedup();
    Ok(ConfigDocument {
        os: outer.os.unwrap_or_default(),
        architecture: outer.architecture.unwrap_or_default(),
        config: ImageConfig {
            entrypoint: inner.entrypoint.unwrap_or_default(),
            cmd: inner.cmd.unwrap_or_default(),
            env: inner.env.unwrap_or_default(),
            user: present(inner.user),
            workdir: present(inner.working_dir),
            exposed_ports,
            stop_signal: present(inner.stop_signal),
            labels: inner.labels.unwrap_or_default(),
        },
        diff_ids: outer.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default(),
    })
}

/// `80`, `80/tcp`; ranges and names are for people and are passed over.
fn parse_port(text: &str) -> Option<ExposedPort> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().ok().filter(|number| *number != 0)?;
    matches!(protocol, "tcp" | "udp" | "sctp").then(|| ExposedPort { number, protocol: protocol.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_with_nulls_and_odd_ports_is_read() {
        let text =
            br#"{"os":"linux","architecture":"amd64","config":{"Entrypoint":null,"Cmd":["/bin/sh"],"Env":["A=b"],
            "User":"","WorkingDir":"/srv","ExposedPorts":{"80/tcp":{},"53/udp":{},"8000-8010/tcp":{},"0":{}},
            "StopSignal":"SIGQUIT","Labels":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let document = parse_config("config", text).unwrap();
        let config = document.config;
        assert_eq!((config.cmd, config.user, config.workdir), (vec!["/bin/sh".into()], None, Some("/srv".into())));
        let ports: Vec<_> = config.exposed_ports.iter().map(|port| (port.number, port.protocol.as_str())).collect();
        assert_eq!(ports, [(53, "udp"), (80, "tcp")]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn documents_of_other_shapes_are_refused() {
        for text in [
            &b""[..],
            b"[]",
            b"{}",
            br#"{"schemaVersion":1,"fsLayers":[]}"#,
            br#"{"schemaVersion":2}"#,
            br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            br#"{"schemaVersion":2,"layers":[],"config":{"digest":"sha256:x","size":1}}"#,
            br#"{"schemaVersion":2,"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-1}]}"#,
        ] {
            assert!(parse("it", text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
