use model::Level;
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// An org has nothing to say of itself yet but its name.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "org",
        plural: "orgs",
        prefix: "org",
        about: "An org owns projects. Nothing of one org can reach another.",
        levels: &[Level::Cloud],
        opens: Some(Level::Org),
        place: Place::Control,
        create: true,
        set: false,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(()),
        phases: &["pending", "ready", "removing"],
        columns: &[Column { title: "PHASE", pointer: "/phase" }],
        streams: &[],
        example: || serde_json::json!({}),
    };
    &CONTRACT
}
