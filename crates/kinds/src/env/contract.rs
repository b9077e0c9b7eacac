use std::collections::BTreeMap;

use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// The most instances of one process.
pub const REPLICAS_MAX: u32 = 100;

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Instances per process, 0 to 100. A process that is not named here has what its manifest says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scale: BTreeMap<String, u32>,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "env",
        plural: "envs",
        prefix: "env",
        about: "An env runs one release of its app, with its own secrets, routes and scale.",
        levels: &[Level::App],
        opens: Some(Level::Env),
        place: Place::Control,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(()),
        phases: &["pending", "ready", "removing"],
        columns: &[Column { title: "PHASE", pointer: "/phase" }, Column { title: "SCALE", pointer: "/spec/scale" }],
        streams: &[],
        example: || serde_json::json!({ "scale": { "web": 3 } }),
    };
    &CONTRACT
}
