use model::Level;
use model::manifest::Manifest;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// What a caller sends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Where the image is; a tag is resolved now and never again. `upload:sha256:...` names one sent to this project.
    pub image: String,
    pub manifest: Manifest,
}

/// What is kept: everything pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Counts the app's releases from 1.
    pub number: u64,
    /// As the caller named it.
    pub image: String,
    pub resolved: image::Resolved,
    pub manifest: Manifest,
    /// SHA-256 of the manifest's canonical form, in hexadecimal.
    pub manifest_hash: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    pub number: u64,
    /// Digest of the image's manifest for this architecture.
    pub digest: String,
    pub manifest_hash: String,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "release",
        plural: "releases",
        prefix: "rel",
        about: "A release pins an image and a manifest. It never changes.",
        levels: &[Level::App],
        opens: None,
        place: Place::Control,
        create: true,
        set: false,
        delete: false,
        spec: || schema_for!(Wanted),
        status: || schema_for!(Status),
        phases: &["pending", "ready"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "IMAGE", pointer: "/spec/image" },
            Column { title: "DIGEST", pointer: "/status/digest" },
        ],
        streams: &[],
        example: || {
            serde_json::json!({
                "image": "registry.example/shop:1.4",
                "manifest": {
                    "schema_version": "v1",
                    "processes": { "web": { "resources": { "memory": "256Mi" } } },
                },
            })
        },
    };
    &CONTRACT
}
