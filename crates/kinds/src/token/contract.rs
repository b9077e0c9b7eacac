use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// `sha256:` and the hexadecimal SHA-256 of the token's text.
    pub hash: String,
    /// A read-only token sees and changes nothing.
    #[serde(default)]
    pub read_only: bool,
    /// Milliseconds since the Unix epoch after which it is refused. Absent: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "token",
        plural: "tokens",
        prefix: "tok",
        about: "A token lets its holder act on everything in the scope where it lives.",
        levels: &[Level::Cloud, Level::Org, Level::Project],
        opens: None,
        place: Place::Control,
        create: true,
        set: false,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(()),
        phases: &["pending", "ready", "expired"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "READ-ONLY", pointer: "/spec/read_only" },
            Column { title: "EXPIRES", pointer: "/spec/expires_ms" },
        ],
        streams: &[],
        example: || {
            serde_json::json!({
                "hash": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "read_only": true,
            })
        },
    };
    &CONTRACT
}
