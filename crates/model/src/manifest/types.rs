//! The manifest's parts with their defaults.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Size;

/// A whole manifest. Maps are sorted by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `v1`.
    pub schema_version: String,
    #[serde(default, skip_serializing_if = "App::is_empty")]
    pub app: App,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    #[serde(default)]
    pub env: Env,
    /// At least one, at most 32.
    pub processes: BTreeMap<String, Process>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// A DNS label. Without it, the caller must say which app is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most 256 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl App {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `registry.example/shop:1.4`, `oci:DIR:TAG`, `oci-archive:FILE` or `docker-archive:FILE`.
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(default)]
    pub pull_policy: PullPolicy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    #[default]
    IfNotPresent,
    Always,
}

/// What all processes share; a process may say otherwise for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Env {
    /// Keys `[A-Z_][A-Z0-9_]*`.
    pub vars: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Run to its end before the process starts; empty for none.
    pub prestart: Vec<String>,
    /// 1 to 3600.
    pub prestart_timeout_seconds: u32,
}

impl Default for Env {
    fn default() -> Self {
        Self { vars: BTreeMap::new(), workdir: None, user: None, prestart: Vec::new(), prestart_timeout_seconds: 30 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Empty: the image's own entrypoint and command.
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// Instead of the env's; absent to keep the env's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prestart: Option<Vec<String>>,
    pub resources: Resources,
    #[serde(default)]
    pub scaling: Scaling,
    #[serde(default)]
    pub restart: Restart,
    #[serde(default)]
    pub secrets: SecretsNeed,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Cores, above 0 and at most 64. A share, not a ceiling.
    #[serde(default = "one_cpu")]
    pub cpu: f64,
    /// A ceiling. At least 64Mi.
    pub memory: Size,
    /// The writable layer. At least 1Gi.
    #[serde(default = "four_gib")]
    pub disk: Size,
}

/// The cpu of a process that names none.
pub(super) const fn one_cpu() -> f64 {
    1.0
}

/// The disk of a process that names none.
pub(super) const fn four_gib() -> Size {
    Size::gib(4)
}

/// Seconds until an instance that nobody asks stands still, and from there until it sleeps, with `min = 0`.
const IDLE_SECONDS: u32 = 300;
const WARM_SECONDS: u32 = 900;

/// How many instances: between `min` and `max`, each 0 to 100. With `min = 0` there is one, which rests when nobody asks it
/// and wakes when somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ScalingForm")]
pub struct Scaling {
    pub min: u32,
    pub max: u32,
    /// With `min = 0`: not asked for this long, an instance stands still. 1 to 86,400.
    #[serde(skip_serializing_if = "is_idle_seconds")]
    pub idle_seconds: u32,
    /// With `min = 0`: standing still for this long, an instance sleeps, and takes no memory. 1 to 86,400.
    #[serde(skip_serializing_if = "is_warm_seconds")]
    pub warm_seconds: u32,
}

impl Scaling {
    /// This many at least, and this many at most, with the usual times.
    pub const fn of(min: u32, max: u32) -> Self {
        Self { min, max, idle_seconds: IDLE_SECONDS, warm_seconds: WARM_SECONDS }
    }

    /// Instances that there are while nobody says otherwise.
    pub fn usual(&self) -> u32 {
        self.min.max(1)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_idle_seconds(seconds: &u32) -> bool {
    *seconds == IDLE_SECONDS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_warm_seconds(seconds: &u32) -> bool {
    *seconds == WARM_SECONDS
}

/// As it is written: `max` is `min`, but at least 1, where it is left out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScalingForm {
    #[serde(default)]
    min: Option<u32>,
    #[serde(default)]
    max: Option<u32>,
    #[serde(default)]
    idle_seconds: Option<u32>,
    #[serde(default)]
    warm_seconds: Option<u32>,
}

impl From<ScalingForm> for Scaling {
    fn from(form: ScalingForm) -> Self {
        let min = form.min.unwrap_or(1);
        Self {
            idle_seconds: form.idle_seconds.unwrap_or(IDLE_SECONDS),
            warm_seconds: form.warm_seconds.unwrap_or(WARM_SECONDS),
            ..Self::of(min, form.max.unwrap_or(min.max(1)))
        }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        Self::of(1, 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    pub policy: RestartPolicy,
    /// Restarts in a row before it counts as failed, with `on-failure`. 0 to 100.
    pub max_retries: u32,
    /// The first pause between restarts. 1 to 300.
    pub backoff_seconds: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Self { policy: RestartPolicy::Always, max_retries: 3, backoff_seconds: 2 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretsNeed {
    /// True: the process does not start before the env has secrets.
    #[serde(default)]
    pub required: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PortForm")]
pub struct Port {
    /// Unique in the process; `p<internal>` when left out.
    pub name: String,
    /// The port the process listens on. 1 to 65535.
    pub internal: u16,
    pub protocol: Protocol,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PortForm {
    #[serde(default)]
    name: Option<String>,
    internal: u16,
    #[serde(default)]
    protocol: Protocol,
}

impl From<PortForm> for Port {
    fn from(form: PortForm) -> Self {
        let name = form.name.unwrap_or_else(|| format!("p{}", form.internal));
        Self { name, internal: form.internal, protocol: form.protocol }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    #[serde(rename = "type")]
    pub kind: HealthType,
    /// One of the process's ports.
    pub port: PortRef,
    /// `http` only; `/` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// 1 to 3600.
    #[serde(default = "ten")]
    pub interval_seconds: u32,
    /// 1 to 3600.
    #[serde(default = "two")]
    pub timeout_seconds: u32,
    /// Failures in this time after the start do not count. 0 to 3600.
    #[serde(default = "ten")]
    pub grace_period_seconds: u32,
    /// 1 to 100.
    #[serde(default = "one")]
    pub success_threshold: u32,
    /// 1 to 100.
    #[serde(default = "three")]
    pub failure_threshold: u32,
}

const fn one() -> u32 {
    1
}
const fn two() -> u32 {
    2
}
const fn three() -> u32 {
    3
}
const fn ten() -> u32 {
    10
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthType {
    Http,
    Tcp,
}

/// A port by its number or by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

impl Process {
    /// The port that `reference` means.
    pub fn port(&self, reference: &PortRef) -> Option<&Port> {
        self.ports.iter().find(|port| match reference {
            PortRef::Number(number) => port.internal == *number,
            PortRef::Name(name) => port.name == *name,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Name of one of the manifest's volumes.
    pub volume: String,
    /// Absolute, and not in a place the system needs.
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    /// At least 1Gi.
    pub size: Size,
    #[serde(default)]
    pub filesystem: Filesystem,
    #[serde(default = "yes")]
    pub backup_enabled: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filesystem {
    #[default]
    Ext4,
}
