use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use store::space::Quota;

/// Most that one key space may be given.
pub const BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
pub const KEYS_MAX: u64 = 10_000_000;

const fn default_bytes() -> u64 {
    64 * 1024 * 1024
}

const fn default_keys() -> u64 {
    100_000
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Keys and values together, in bytes: 1 to 8 GiB.
    #[serde(default = "default_bytes")]
    pub bytes: u64,
    /// Keys that exist at once: 1 to 10 million.
    #[serde(default = "default_keys")]
    pub keys: u64,
}

impl Spec {
    pub fn quota(self) -> Quota {
        Quota { bytes: self.bytes, keys: self.keys }
    }
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "keyspace",
        plural: "keyspaces",
        prefix: "ks",
        about: "A key space of a project's own, for any etcd client: keys, watches, leases, within a quota.",
        levels: &[Level::Project],
        opens: None,
        place: Place::Control,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(()),
        phases: &["pending", "ready", "removing"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "BYTES", pointer: "/spec/bytes" },
            Column { title: "KEYS", pointer: "/spec/keys" },
        ],
        streams: &[],
        example: || serde_json::json!({ "bytes": 1_048_576, "keys": 1000 }),
    };
    &CONTRACT
}
