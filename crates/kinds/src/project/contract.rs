use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The project's network, 0 to 4095. Chosen by the cloud, never changed, never given to another project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<u16>,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "project",
        plural: "projects",
        prefix: "prj",
        about: "A project is the boundary of security and quota; its machines share one network.",
        levels: &[Level::Org],
        opens: Some(Level::Project),
        place: Place::Control,
        create: true,
        set: false,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(()),
        phases: &["pending", "ready", "removing"],
        columns: &[Column { title: "PHASE", pointer: "/phase" }, Column { title: "NETWORK", pointer: "/spec/network" }],
        streams: &[],
        example: || serde_json::json!({}),
    };
    &CONTRACT
}
