use std::collections::BTreeMap;

use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// The one name a bundle has: an env has exactly one.
pub const NAME: &str = "env";

/// What a caller sends: keys to set, with their values, and keys to remove. Others stay as they are.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    #[serde(default)]
    pub unset: Vec<String>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.set.keys().collect();
        f.debug_struct("Wanted").field("set", &keys).field("unset", &self.unset).finish()
    }
}

/// What is kept in the open: which keys there are, never a value.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Sorted.
    pub keys: Vec<String>,
    /// Counts changes from 1.
    pub version: u64,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "secret",
        plural: "secrets",
        prefix: "sb",
        about: "The secret bundle of an env, encrypted at rest. Values go in and reach the guest; no answer holds one.",
        levels: &[Level::Env],
        opens: None,
        place: Place::Control,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Wanted),
        status: || schema_for!(Spec),
        phases: &["pending", "ready"],
        columns: &[
            Column { title: "VERSION", pointer: "/spec/version" },
            Column { title: "KEYS", pointer: "/spec/keys" },
        ],
        streams: &[],
        example: || serde_json::json!({ "set": { "API_KEY": "s3cr3t" } }),
    };
    &CONTRACT
}
