//! The cloud's settings: one table of keys, one loader, one precedence.
//!
//! flag > environment > file > default. A key that is not in the table is an error that shows the nearest one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use model::Error;
use model::unit::Size;
use serde::Serialize;

use crate::compactor::Retention;
use crate::engine::{Access, Place};

/// A setting: key, default, what it is.
pub struct Setting {
    pub key: &'static str,
    pub default: &'static str,
    pub about: &'static str,
}

const fn setting(key: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { key, default, about }
}

/// Every setting there is. An empty default means: not set.
pub const SETTINGS: &[Setting] = &[
    setting("data_dir", "/var/lib/vt", "folder of everything the cloud writes"),
    setting("node.name", "", "name of this machine; its host name when empty"),
    setting("node.memory", "", "memory for instances; all but a fifth of the machine's when empty"),
    setting(
        "store.url",
        "embedded",
        "where the truth is kept: embedded, replicated, etcd://HOST:PORT,... or postgres://USER@HOST/DATABASE",
    ),
    setting("store.cacert", "", "PEM file: who vouches for an etcd's certificates; with it TLS is spoken"),
    setting("store.cert", "", "PEM file: the certificate that an etcd is shown"),
    setting("store.key", "", "PEM file: its private key"),
    setting("store.user", "", "name to log in to an etcd with"),
    setting("store.password_file", "", "file with the password for an etcd or a database"),
    setting("store.history", "1h", "how long older versions of rows are kept, such as 30m or 24h; 0 keeps all"),
    setting("store.name", "", "replicated: this member's name; the machine's when empty"),
    setting("store.listen_client", "http://127.0.0.1:2379", "replicated: where etcd's API is served"),
    setting("store.advertise_client", "", "replicated: where clients reach it; as it listens when empty"),
    setting("store.listen_peer", "http://127.0.0.1:2380", "replicated: where other members are served"),
    setting("store.advertise_peer", "", "replicated: where other members reach it; as it listens when empty"),
    setting("store.initial_cluster", "", "replicated: NAME=URL,... of all members; this one alone when empty"),
    setting("store.initial_cluster_state", "new", "replicated: new, or existing to join a cluster that runs"),
    setting("store.initial_cluster_token", "etcd-cluster", "replicated: tells clusters with equal addresses apart"),
    setting("store.server_cert", "", "replicated, PEM file: certificate for clients, with https://"),
    setting("store.server_key", "", "replicated, PEM file: its private key"),
    setting(
        "store.server_ca",
        "",
        "replicated, PEM file: who vouches for clients; with it they must show a certificate",
    ),
    setting("store.peer_cert", "", "replicated, PEM file: certificate for other members, with https://"),
    setting("store.peer_key", "", "replicated, PEM file: its private key"),
    setting("store.peer_ca", "", "replicated, PEM file: who vouches for other members"),
    setting("api.listen", "127.0.0.1:7700", "address and port of the API"),
    setting("ingress.http", "127.0.0.1:8080", "address and port for HTTP by host name"),
    setting("ingress.tls", "127.0.0.1:8443", "address and port for TLS by server name"),
    setting("ingress.tcp_bind", "127.0.0.1", "address on which tcp routes listen"),
    setting("ingress.domain", "vt.localhost", "default routes are APP-ENV.DOMAIN"),
    setting("keyspace.listen", "127.0.0.1:7379", "address and port of the door to key spaces; closed when empty"),
    setting("network.ipv4", "10.240.0.0/12", "addresses of projects, a /24 each"),
    setting("network.ipv6", "", "unique local /48 of projects, a /64 each; drawn once when empty"),
    setting("network.egress", "true", "true: guests reach the outside by NAT"),
    setting("network.dns", "", "name servers for guests, separated by commas; the machine's own when empty"),
    setting("images.disk_budget", "20Gi", "disk for images; unused ones beyond it are removed"),
    setting("images.credentials_file", "", "docker-style file with logins of registries"),
    setting("vm.max", "200", "machines at once"),
    setting("vm.accelerator", "auto", "auto, kvm or tcg; auto probes KVM with a real guest"),
    setting("kernel.dir", "", "folder with an unpacked kernel package; fetched by package name when empty"),
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// One value with its origin, for `vt config show --origin`.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub key: String,
    pub value: String,
    pub origin: String,
    pub about: &'static str,
}

/// All values, typed.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub node_name: Option<String>,
    pub node_memory: Option<Size>,
    pub store: Place,
    pub store_access: AccessFiles,
    pub store_history: Retention,
    /// Of a member in this process: flags of `vt store serve` with values.
    pub store_member: Vec<(&'static str, String)>,
    pub api_listen: SocketAddr,
    pub ingress_http: SocketAddr,
    pub ingress_tls: Option<SocketAddr>,
    pub ingress_tcp_bind: IpAddr,
    pub domain: String,
    pub keyspace_listen: Option<SocketAddr>,
    pub ipv4: Ipv4Net,
    /// Somebody asked for that one; otherwise another is taken where it is in use.
    pub ipv4_set: bool,
    pub ipv6: Option<Ipv6Net>,
    pub egress: bool,
    pub dns: Vec<IpAddr>,
    pub images_disk_budget: Size,
    pub images_credentials: Option<PathBuf>,
    pub vms_max: usize,
    pub accelerator: Accelerator,
    pub kernel_dir: Option<PathBuf>,
    pub shown: Vec<Shown>,
}

/// How to come in to a store that others serve: files that are read when it is opened.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    pub authority: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<PathBuf>,
}

impl AccessFiles {
    /// The password is read now, without the newline at its end; `VT_STORE_PASSWORD` when no file is named.
    pub fn read(&self) -> Result<Access, Error> {
        let password = match &self.password {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::invalid("store.password_file", format!("{} cannot be read: {error}", path.display()))
                })?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => std::env::var("VT_STORE_PASSWORD").ok(),
        };
        Ok(Access {
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            password,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Auto,
    Kvm,
    Tcg,
}

impl FromStr for Accelerator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Accelerator::Auto),
            "kvm" => Ok(Accelerator::Kvm),
            "tcg" => Ok(Accelerator::Tcg),
            _ => Err("expected auto, kvm or tcg".into()),
        }
    }
}

type Values = BTreeMap<String, (String, Origin)>;

/// Reads files, environment and flags. `flags` are keys with values; `environment` is the process's own.
pub fn load(
    files: &[PathBuf],
    environment: impl Iterator<Item = (String, String)>,
    flags: &[(&str, String)],
) -> Result<Config, Error> {
    let mut values: Values =
        SETTINGS.iter().map(|s| (s.key.to_owned(), (s.default.to_owned(), Origin::Default))).collect();
    for path in files {
        read_file(path, &mut values)?;
    }
    let environment: BTreeMap<String, String> = environment.collect();
    for setting in SETTINGS {
        let name = format!("VT_{}", setting.key.replace('.', "_").to_ascii_uppercase());
        if let Some(value) = environment.get(&name) {
            values.insert(setting.key.to_owned(), (value.clone(), Origin::Environment(name)));
        }
    }
    for (key, value) in flags {
        values.insert((*key).to_owned(), (value.clone(), Origin::Flag));
    }
    typed(&values)
}

fn read_file(path: &Path, values: &mut Values) -> Result<(), Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::invalid("config", format!("{} cannot be read: {error}", path.display())))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Error::invalid("config", format!("{}: {}", path.display(), error.message()))
    })?;
    let mut flat = Vec::new();
    flatten("", &table, &mut flat);
    for (key, value) in flat {
        let Some(slot) = values.get_mut(&key) else {
            let message = format!("{}: unknown setting `{key}`", path.display());
            return Err(Error::invalid(key.clone(), message).hint(format!("the nearest one is `{}`", nearest(&key))));
        };
        *slot = (value, Origin::File(path.to_owned()));
    }
    Ok(())
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, out),
            toml::Value::String(text) => out.push((key, text.clone())),
            toml::Value::Array(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
                out.push((key, items.join(",")));
            }
            other => out.push((key, other.to_string())),
        }
    }
}

/// The key that shares the most of its letters' pairs with `key`.
fn nearest(key: &str) -> &'static str {
    let pairs = |text: &str| text.as_bytes().windows(2).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let wanted = pairs(key);
    let score = |known: &str| {
        let known = pairs(known);
        let shared = wanted.iter().filter(|pair| known.contains(pair)).count();
        (shared * 1000) / (wanted.len() + known.len()).max(1)
    };
    SETTINGS.iter().map(|setting| setting.key).max_by_key(|known| score(known)).unwrap_or("data_dir")
}

fn parse<T: FromStr>(values: &Values, key: &str) -> Result<T, Error>
where
    T::Err: fmt::Display,
{
    let (value, origin) = &values[key];
    // A URL that is wrong may hold a password.
    let said = if key == "store.url" { "..." } else { value.as_str() };
    value.parse().map_err(|error| {
        let example = SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.default);
        let error = Error::invalid(key, format!("setting `{key}` = `{said}` (from {origin}): {error}"));
        if example.is_empty() { error } else { error.hint(format!("for example {example}")) }
    })
}

fn optional<T: FromStr>(values: &Values, key: &str) -> Result<Option<T>, Error>
where
    T::Err: fmt::Display,
{
    if values[key].0.is_empty() { Ok(None) } else { parse(values, key).map(Some) }
}

fn typed(values: &Values) -> Result<Config, Error> {
    let dns = values["network.dns"].0.split(',').map(str::trim).filter(|text| !text.is_empty());
    let dns = dns
        .map(|text| {
            text.parse().map_err(|_| {
                Error::invalid("network.dns", format!("setting `network.dns`: `{text}` is not an address"))
            })
        })
        .collect::<Result<Vec<IpAddr>, Error>>()?;
    let shown = values.iter().map(|(key, (value, origin))| Shown {
        key: key.clone(),
        value: value.clone(),
        origin: origin.to_string(),
        about: SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.about),
    });
    Ok(Config {
        data_dir: std::path::absolute(&values["data_dir"].0)
            .map_err(|error| Error::invalid("data_dir", format!("setting `data_dir`: {error}")))?,
        node_name: optional(values, "node.name")?,
        node_memory: optional(values, "node.memory")?,
        store: parse(values, "store.url")?,
        store_history: parse(values, "store.history")?,
        store_member: member(values),
        store_access: AccessFiles {
            authority: optional(values, "store.cacert")?,
            certificate: optional(values, "store.cert")?,
            key: optional(values, "store.key")?,
            user: optional(values, "store.user")?,
            password: optional(values, "store.password_file")?,
        },
        api_listen: parse(values, "api.listen")?,
        ingress_http: parse(values, "ingress.http")?,
        ingress_tls: optional(values, "ingress.tls")?,
        ingress_tcp_bind: parse(values, "ingress.tcp_bind")?,
        domain: values["ingress.domain"].0.clone(),
        keyspace_listen: optional(values, "keyspace.listen")?,
        ipv4: parse(values, "network.ipv4")?,
        ipv4_set: values["network.ipv4"].1 != Origin::Default,
        ipv6: optional(values, "network.ipv6")?,
        egress: parse(values, "network.egress")?,
        dns,
        images_disk_budget: parse(values, "images.disk_budget")?,
        images_credentials: optional(values, "images.credentials_file")?,
        vms_max: parse(values, "vm.max")?,
        accelerator: parse(values, "vm.accelerator")?,
        kernel_dir: optional(values, "kernel.dir")?,
        shown: shown.collect(),
    })
}

/// The settings of a member as `vt store serve` takes them.
fn member(values: &Values) -> Vec<(&'static str, String)> {
    let text = |key: &str| values[key].0.clone();
    let or = |key: &str, other: &str| if text(key).is_empty() { text(other) } else { text(key) };
    let mut flags = vec![
        ("name", text("store.name")),
        ("listen-client-urls", text("store.listen_client")),
        ("advertise-client-urls", or("store.advertise_client", "store.listen_client")),
        ("listen-peer-urls", text("store.listen_peer")),
        ("initial-advertise-peer-urls", or("store.advertise_peer", "store.listen_peer")),
        ("initial-cluster", text("store.initial_cluster")),
        ("initial-cluster-state", text("store.initial_cluster_state")),
        ("initial-cluster-token", text("store.initial_cluster_token")),
        ("cert-file", text("store.server_cert")),
        ("key-file", text("store.server_key")),
        ("trusted-ca-file", text("store.server_ca")),
        ("peer-cert-file", text("store.peer_cert")),
        ("peer-key-file", text("store.peer_key")),
        ("peer-trusted-ca-file", text("store.peer_ca")),
    ];
    if !text("store.server_ca").is_empty() {
        flags.push(("client-cert-auth", "true".to_owned()));
    }
    flags.retain(|(_, value)| !value.is_empty());
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> std::iter::Empty<(String, String)> {
        std::iter::empty()
    }

    #[test]
    fn a_flag_beats_the_environment_beats_a_file_beats_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vt.conf");
        std::fs::write(&file, "[api]\nlisten = \"127.0.0.1:1\"\n[ingress]\nhttp = \"127.0.0.1:2\"\n[vm]\nmax = 7\n")
            .unwrap();
        let environment =
            [("VT_INGRESS_HTTP".to_owned(), "127.0.0.1:3".to_owned()), ("VT_VM_MAX".to_owned(), "8".to_owned())];
        let flags = [("vm.max", "9".to_owned())];
        let config = load(std::slice::from_ref(&file), environment.into_iter(), &flags).unwrap();
        assert_eq!(config.api_listen.port(), 1);
        assert_eq!(config.ingress_http.port(), 3);
        assert_eq!(config.vms_max, 9);
        assert_eq!(config.domain, "vt.localhost");
        let origin = |key: &str| config.shown.iter().find(|shown| shown.key == key).unwrap().origin.clone();
        assert_eq!(origin("vm.max"), "flag");
        assert_eq!(origin("ingress.http"), "environment VT_INGRESS_HTTP");
        assert_eq!(origin("api.listen"), format!("file {}", file.display()));
        assert_eq!(origin("ingress.domain"), "default");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vt.conf");
        std::fs::write(&file, "[api]\nlisen = \"127.0.0.1:1\"\n").unwrap();
        let error = load(&[file], none(), &[]).unwrap_err();
        assert!(error.message.contains("api.lisen") && error.hint.contains("api.listen"), "{error:?}");
        let error = load(&[], none(), &[("vm.max", "many".to_owned())]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("vm.max"));
        let error = load(&[], none(), &[("store.url", "postgres://vt:hidden@h/d".to_owned())]).unwrap_err();
        assert!(error.field.as_deref() == Some("store.url") && !error.message.contains("hidden"), "{error:?}");
    }
}
