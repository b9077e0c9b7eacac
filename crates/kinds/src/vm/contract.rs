use model::manifest::{Health, Port, Restart};
use model::unit::Size;
use model::{Id, Level};
use reconcile::Contract;
use reconcile::kind::{Column, Place, StreamContract};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// What a caller sends: an instance of one process of a release of the same app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    pub release: Id,
    pub process: String,
    /// What it is to do; the only thing of an instance that may change.
    #[serde(default)]
    pub state: State,
}

/// What an instance is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Run.
    #[default]
    Running,
    /// Stand still, with its memory where it is.
    Warm,
    /// Have its memory on the disk and no process.
    Sleeping,
}

/// When an instance that nobody asks rests; it wakes when somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Running and not asked for this long, it stands still.
    pub idle_seconds: u32,
    /// Standing still for this long, it sleeps.
    pub warm_seconds: u32,
}

/// What is kept: the release's words made whole, so that the node needs nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub release: Id,
    pub process: String,
    #[serde(default)]
    pub state: State,
    /// Absent: it never rests by itself.
    #[serde(default)]
    pub rest: Option<Rest>,
    /// Digest of the image's manifest.
    pub image: String,
    pub argv: Vec<String>,
    /// `KEY=VALUE`, sorted by key.
    pub env: Vec<String>,
    pub workdir: String,
    pub user: String,
    pub prestart: Vec<String>,
    pub prestart_timeout_seconds: u32,
    pub restart: Restart,
    pub cpu: f64,
    pub memory: Size,
    pub disk: Size,
    pub ports: Vec<Port>,
    pub health: Option<Health>,
    /// The port that `health` probes, by number.
    pub health_port: Option<u16>,
    pub secrets: Option<Bundle>,
    pub secrets_required: bool,
    pub network: Address,
}

impl Spec {
    pub fn secrets_version(&self) -> Option<u64> {
        self.secrets.as_ref().map(|bundle| bundle.version)
    }
}

/// One version of a secret bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    pub id: Id,
    pub version: u64,
}

/// A place in the project's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The project's network number.
    pub number: u16,
    /// The place in it, 2 to 254.
    pub offset: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    pub address4: Option<String>,
    pub address6: Option<String>,
    /// Changes with each boot of the guest.
    pub boot_id: Option<String>,
    pub started_ms: Option<u64>,
    /// Boots after the first.
    pub reboots: u32,
    /// Starts of the process within the present boot after the first.
    pub restarts: u32,
    /// What the last boot ended with, when it did not end as wished.
    pub last_failure: Option<String>,
    /// Where the running machine began: `boot`, `template` (a clone), `sleep` (its own memory).
    pub began: Option<String>,
    /// Why it booted and did not go on from something saved; empty when there was no need to.
    pub began_why: Option<String>,
    /// It rests, or is waking and not ready yet: clients wait for it.
    pub rested: bool,
    /// Since when it is in its phase of running, warm or sleeping, in milliseconds since the Unix epoch.
    pub state_since_ms: Option<u64>,
}

pub fn contract() -> &'static Contract {
    static CONTRACT: Contract = Contract {
        name: "vm",
        plural: "vms",
        prefix: "vm",
        about: "A microVM: one instance of one process of a release.",
        levels: &[Level::Env],
        opens: None,
        place: Place::AssignedNode,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Wanted),
        status: || schema_for!(Status),
        phases: &["pending", "starting", "running", "ready", "resting", "warm", "sleeping", "draining", "failed"],
        columns: &[
            Column { title: "PHASE", pointer: "/phase" },
            Column { title: "PROCESS", pointer: "/spec/process" },
            Column { title: "BEGAN", pointer: "/status/began" },
            Column { title: "ADDRESS", pointer: "/status/address6" },
            Column { title: "MEMORY", pointer: "/spec/memory" },
            Column { title: "RESTARTS", pointer: "/status/restarts" },
            Column { title: "REASON", pointer: "/reason/code" },
        ],
        streams: &[
            StreamContract {
                name: "logs",
                about: "Lines of standard output and standard error.",
                duplex: false,
                parameters: &[
                    ("follow", "true: go on with new lines"),
                    ("tail", "how many of the latest lines to begin with; 200 when absent, at most 10000"),
                ],
            },
            StreamContract {
                name: "exec",
                about: "A process inside the guest, with or without a terminal.",
                duplex: true,
                parameters: &[],
            },
        ],
        example: || serde_json::json!({ "release": "rel_01J9ZP5K3W8Q7R2T4V6X8Y0A1B", "process": "web" }),
    };
    &CONTRACT
}
