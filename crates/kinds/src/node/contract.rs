use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// What a machine offers to instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Memory for instances, with the hypervisor's share, in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// `kvm`, or `tcg` for software emulation.
    pub engine: String,
    /// Why this one: what the probe saw.
    pub engine_why: String,
    pub hypervisor: String,
    pub kernel: String,
    /// One for each thing that was looked at, in order of name.
    pub checks: Vec<Check>,
}

/// Something that was looked at on the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What is there, or what is missing.
    pub what: String,
    /// What would mend it; empty while `ok`.
    pub fix: String,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "node",
        plural: "nodes",
        prefix: "node",
        about: "A machine that runs instances.",
        levels: &[Level::Cloud],
        opens: None,
        place: Place::AssignedNode,
        create: false,
        set: false,
        delete: false,
        spec: || schema_for!(Spec),
        status: || schema_for!(Status),
        phases: &["pending", "ready"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "ENGINE", pointer: "/status/engine" },
            Column { title: "CPUS", pointer: "/spec/cpus" },
            Column { title: "MEMORY", pointer: "/spec/memory_bytes" },
        ],
        streams: &[],
        example: || serde_json::json!({ "memory_bytes": 8_589_934_592_u64, "cpus": 4 }),
    };
    &CONTRACT
}
