use model::{Id, Level};
use reconcile::Contract;
use reconcile::kind::{Column, Place};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// How the ingress treats what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// HTTP by host name.
    Http,
    /// TLS by server name, not terminated.
    Tls,
    /// Bytes by port.
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub mode: Mode,
    /// For `http` and `tls`: the whole host name, lower case; unique over all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// For `tcp`: the port that the ingress listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// The process whose ready instances are the backends.
    pub process: String,
    /// The port of the process inside its instances.
    pub port: u16,
}

impl Spec {
    pub fn http(host: String, process: &str, port: u16) -> Self {
        Self { mode: Mode::Http, host: Some(host), listen_port: None, process: process.to_owned(), port }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    pub url: String,
    /// Instances that traffic goes to, or that still finish what they have; in order of id.
    pub backends: Vec<Id>,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "route",
        plural: "routes",
        prefix: "rt",
        about: "A route brings traffic from the ingress to the ready instances of a process.",
        levels: &[Level::Env],
        opens: None,
        place: Place::EveryNode,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Spec),
        status: || schema_for!(Status),
        phases: &["pending", "ready"],
        columns: &[
            Column { title: "MODE", pointer: "/spec/mode" },
            Column { title: "URL", pointer: "/status/url" },
            Column { title: "PROCESS", pointer: "/spec/process" },
            Column { title: "REASON", pointer: "/reason/code" },
        ],
        streams: &[],
        example: || serde_json::json!({ "mode": "http", "host": "shop.example", "process": "web", "port": 8080 }),
    };
    &CONTRACT
}
