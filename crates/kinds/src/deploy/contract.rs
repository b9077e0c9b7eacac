use model::{Id, Level};
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The release to run; one of the same app.
    pub release: Id,
}

/// One instance as the deploy sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    pub id: Id,
    pub name: String,
    pub process: String,
    pub phase: String,
    pub address: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// Counts the app's releases from 1.
    pub release_number: u64,
    /// Where the app answers, when it has a route.
    pub url: Option<String>,
    pub desired: u32,
    pub ready: u32,
    /// Of this deploy, in order of name.
    pub instances: Vec<Instance>,
    /// When failed instances were replaced, in milliseconds since the Unix epoch; the newest few.
    pub replaced_ms: Vec<u64>,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "deploy",
        plural: "deploys",
        prefix: "dep",
        about: "A deploy brings one release into an env: new instances first, old ones out once the new are ready.",
        levels: &[Level::Env],
        opens: None,
        place: Place::Control,
        create: true,
        set: false,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(Status),
        phases: &["pending", "rolling", "live", "failed", "superseded"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "RELEASE", pointer: "/status/release_number" },
            Column { title: "READY", pointer: "/status/ready" },
            Column { title: "DESIRED", pointer: "/status/desired" },
            Column { title: "REASON", pointer: "/reason/code" },
        ],
        streams: &[],
        example: || serde_json::json!({ "release": "rel_01J9ZP5K3W8Q7R2T4V6X8Y0A1B" }),
    };
    &CONTRACT
}
