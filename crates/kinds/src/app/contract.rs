use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// For people; at most 256 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub description: String,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "app",
        plural: "apps",
        prefix: "app",
        about: "An app has releases and runs in envs.",
        levels: &[Level::Project],
        opens: Some(Level::App),
        place: Place::Control,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(()),
        phases: &["pending", "ready", "removing"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "DESCRIPTION", pointer: "/spec/description" },
        ],
        streams: &[],
        example: || serde_json::json!({ "description": "the shop" }),
    };
    &CONTRACT
}
