//! The flags and variables of `vt store serve`, checked and typed. Each refusal names the flag.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::flags::{FLAGS, Fate, Flag, Given, flag};
use crate::compactor::Retention;
use crate::failure::Failure;

/// Also the least that etcd allows between the two.
const HEARTBEATS_IN_ELECTION_MIN: u64 = 5;
/// As etcd bounds it: beyond, a dead leader is not noticed in useful time.
const ELECTION_MS_MAX: u64 = 50_000;
/// What `--quota-backend-bytes=0` means.
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
/// A cluster that is larger is slower and no safer.
const MEMBERS_MAX: usize = 31;

/// Where something listens or is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Url {
    fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme; write http://HOST:PORT")?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            "unix" | "unixs" => return Err("unix sockets are not served; write http://HOST:PORT".into()),
            other => return Err(format!("`{other}` is no scheme; write http:// or https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', ' ']) {
            return Err("more than host and port; write http://HOST:PORT".into());
        }
        let (host, port) = rest.rsplit_once(':').ok_or("it has no port; write http://HOST:PORT")?;
        let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
            return Err("it has no host; write http://HOST:PORT".into());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }

    /// The address to bind. A name other than localhost could mean another machine.
    fn address(&self) -> Result<SocketAddr, String> {
        let host = if self.host == "localhost" {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            let none = || format!("expected an IP address to bind, found the name `{}`", self.host);
            self.host.parse().map_err(|_| none())?
        };
        Ok(SocketAddr::new(host, self.port))
    }
}

/// Somewhere to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub tls: bool,
}

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub authorities: Option<PathBuf>,
    /// Whoever calls must show a certificate of these authorities.
    pub client_auth: bool,
}

/// Everything that `vt store serve` was told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_client: Vec<Listen>,
    pub advertise_client: Vec<Url>,
    pub listen_peer: Vec<Listen>,
    pub advertise_peer: Vec<Url>,
    /// The members of a new cluster, or of the one to join; this one is among them.
    pub cluster: BTreeMap<String, Vec<Url>>,
    pub joins: bool,
    pub token: String,
    pub client_tls: Tls,
    pub peer_tls: Tls,
    pub heartbeat: Duration,
    pub election: Duration,
    pub snapshot_entries: u64,
    pub quota_bytes: u64,
    pub retention: Retention,
    pub listen_metrics: Vec<Listen>,
    /// A level of tracing.
    pub log_level: &'static str,
    /// What was accepted without effect, a sentence each.
    pub notes: Vec<String>,
}

/// Values by flag, and where each came from.
struct Values {
    values: BTreeMap<&'static str, (String, String)>,
}

impl Values {
    fn collect(given: &Given, environment: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let mut notes = Vec::new();
        let mut values = BTreeMap::new();
        for flag in FLAGS {
            let variable = flag.variable();
            // etcd takes an empty variable for one that is not set.
            let said = environment.get(&variable).filter(|value| !value.is_empty());
            match (given.0.get(flag.name), said) {
                (Some(value), other) => {
                    if other.is_some_and(|other| other != value) {
                        notes.push(format!("{variable} gives way to --{}", flag.name));
                    }
                    values.insert(flag.name, (value.clone(), format!("--{}", flag.name)));
                }
                (None, Some(value)) => {
                    values.insert(flag.name, (value.clone(), variable));
                }
                (None, None) => {}
            }
        }
        let known = |name: &str| FLAGS.iter().any(|flag| flag.variable() == name) || name == "ETCD_VERSION";
        for name in environment.keys().filter(|name| name.starts_with("ETCD_") && !known(name)) {
            notes.push(format!("{name} is no setting of etcd"));
        }
        (Self { values }, notes)
    }

    fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn text(&self, name: &'static str) -> &str {
        let default = || flag(name).map_or("", |flag| flag.default);
        self.values.get(name).map_or_else(default, |(value, _)| value)
    }

    fn wrong(&self, name: &'static str, what: impl fmt::Display) -> Failure {
        let origin = self.values.get(name).map_or_else(|| format!("--{name}"), |(_, origin)| origin.clone());
        let about = flag(name).map_or("", |flag| flag.about);
        let failure = Failure::usage(format!("{origin}={}: {what}", self.text(name)));
        let mut failure = if about.is_empty() { failure } else { failure.why(about) };
        failure.error.field = Some(format!("--{name}"));
        failure
    }

    fn number(&self, name: &'static str, least: u64, most: u64) -> Result<u64, Failure> {
        let number = self.text(name).parse::<u64>().map_err(|_| self.wrong(name, "not a whole number"))?;
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong(name, format!("must be between {least} and {most}")))
        }
    }

    fn switch(&self, name: &'static str) -> Result<bool, Failure> {
        match self.text(name).to_ascii_lowercase().as_str() {
            "" | "false" | "f" | "0" => Ok(false),
            "true" | "t" | "1" => Ok(true),
            _ => Err(self.wrong(name, "write true or false")),
        }
    }

    fn file(&self, name: &'static str) -> Option<PathBuf> {
        let text = self.text(name);
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn urls(&self, name: &'static str) -> Result<Vec<Url>, Failure> {
        let parts = self.text(name).split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| Url::read(part).map_err(|why| self.wrong(name, format!("`{part}`: {why}")))).collect()
    }

    fn listen(&self, name: &'static str) -> Result<Vec<Listen>, Failure> {
        let listen =
            |url: Url| Ok(Listen { address: url.address().map_err(|why| self.wrong(name, why))?, tls: url.tls });
        self.urls(name)?.into_iter().map(listen).collect()
    }

    fn tls(&self, names: [&'static str; 4], listens: bool) -> Result<Tls, Failure> {
        let [certificate, key, authorities, client_auth] = names;
        let tls = Tls {
            certificate: self.file(certificate),
            key: self.file(key),
            authorities: self.file(authorities),
            client_auth: self.switch(client_auth)?,
        };
        match (&tls.certificate, &tls.key) {
            (Some(_), None) => return Err(self.wrong(key, "missing beside the certificate")),
            (None, Some(_)) => return Err(self.wrong(certificate, "missing beside the key")),
            (None, None) if listens => {
                return Err(self.wrong(certificate, "missing, and an https:// URL is to be served"));
            }
            _ => {}
        }
        if tls.client_auth && tls.authorities.is_none() {
            return Err(self.wrong(authorities, format!("missing, and --{client_auth} has nothing to check against")));
        }
        Ok(tls)
    }
}

impl Settings {
    pub fn read(given: &Given, environment: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let (values, mut notes) = Values::collect(given, environment);
        for flag in FLAGS.iter().filter(|flag| values.is_set(flag.name)) {
            let text = values.text(flag.name);
            match flag.fate {
                Fate::Ignored(why) => notes.push(format!("--{} has no effect: {why}", flag.name)),
                Fate::Refused(why) if !harmless(flag, text) => {
                    return Err(values.wrong(flag.name, "this is not supported").hint(why));
                }
                Fate::Refused(_) | Fate::Used => {}
            }
        }
        let name = values.text("name").to_owned();
        if name.is_empty() || name.contains(['=', ',']) {
            return Err(values.wrong("name", "must not be empty, nor hold `=` or `,`"));
        }
        if values.is_set("listen-client-urls") && !values.is_set("advertise-client-urls") {
            return Err(values.wrong("advertise-client-urls", "must be given when --listen-client-urls is"));
        }
        let listen_client = values.listen("listen-client-urls")?;
        let listen_peer = values.listen("listen-peer-urls")?;
        for (name, list) in [("listen-client-urls", &listen_client), ("listen-peer-urls", &listen_peer)] {
            if list.is_empty() {
                return Err(values.wrong(name, "names no URL"));
            }
        }
        let advertise_client = values.urls("advertise-client-urls")?;
        let advertise_peer = values.urls("initial-advertise-peer-urls")?;
        if advertise_peer.is_empty() {
            return Err(values.wrong("initial-advertise-peer-urls", "names no URL"));
        }
        let secure = |list: &[Listen]| list.iter().any(|listen| listen.tls);
        let client_tls =
            values.tls(["cert-file", "key-file", "trusted-ca-file", "client-cert-auth"], secure(&listen_client))?;
        let peer_tls = values.tls(
            ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth"],
            secure(&listen_peer),
        )?;
        let cluster = cluster(&values, &name, &advertise_peer)?;
        let heartbeat = values.number("heartbeat-interval", 1, ELECTION_MS_MAX / HEARTBEATS_IN_ELECTION_MIN)?;
        let election = values.number("election-timeout", heartbeat * HEARTBEATS_IN_ELECTION_MIN, ELECTION_MS_MAX)?;
        let joins = match values.text("initial-cluster-state") {
            "new" => false,
            "existing" => true,
            _ => return Err(values.wrong("initial-cluster-state", "write new or existing")),
        };
        for (name, limit) in [
            ("max-txn-ops", store::limits::TXN_OPS_MAX as u64),
            ("max-request-bytes", store::limits::REQUEST_BYTES_MAX as u64),
        ] {
            // The limits are those of every engine of the store, so that what one took the others take, too.
            if values.number(name, 1, limit)? < limit {
                notes.push(format!("--{name} has no effect: up to {limit} are taken"));
            }
        }
        let quota = values.number("quota-backend-bytes", 0, i64::MAX as u64)?;
        let data_dir = values.file("data-dir").filter(|_| values.is_set("data-dir"));
        Ok(Self {
            data_dir: data_dir.unwrap_or_else(|| format!("{name}.etcd").into()),
            name,
            listen_client,
            advertise_client,
            listen_peer,
            advertise_peer,
            cluster,
            joins,
            token: values.text("initial-cluster-token").to_owned(),
            client_tls,
            peer_tls,
            heartbeat: Duration::from_millis(heartbeat),
            election: Duration::from_millis(election),
            snapshot_entries: values.number("snapshot-count", 1, u64::MAX)?,
            quota_bytes: if quota == 0 { QUOTA_BYTES_DEFAULT } else { quota },
            retention: retention(&values)?,
            listen_metrics: values.listen("listen-metrics-urls")?,
            log_level: match values.text("log-level") {
                "debug" => "debug",
                "info" => "info",
                "warn" => "warn",
                "error" | "dpanic" | "panic" | "fatal" => "error",
                _ => return Err(values.wrong("log-level", "write debug, info, warn or error")),
            },
            notes,
        })
    }
}

/// Whether a flag that is refused asks for nothing.
fn harmless(flag: &Flag, text: &str) -> bool {
    text.is_empty() || text == flag.default || text.eq_ignore_ascii_case("false")
}

fn cluster(values: &Values, name: &str, own: &[Url]) -> Result<BTreeMap<String, Vec<Url>>, Failure> {
    const FLAG: &str = "initial-cluster";
    if !values.is_set(FLAG) {
        return Ok(BTreeMap::from([(name.to_owned(), own.to_vec())]));
    }
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for part in values.text(FLAG).split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (member, url) =
            part.split_once('=').ok_or_else(|| values.wrong(FLAG, format!("`{part}`: write NAME=URL")))?;
        let url = Url::read(url).map_err(|why| values.wrong(FLAG, format!("`{part}`: {why}")))?;
        if members.values().flatten().any(|known| *known == url) {
            return Err(values.wrong(FLAG, format!("{url} stands there twice")));
        }
        members.entry(member.to_owned()).or_default().push(url);
    }
    if members.len() > MEMBERS_MAX {
        return Err(values.wrong(FLAG, format!("{} members, at most {MEMBERS_MAX} are allowed", members.len())));
    }
    let Some(listed) = members.get(name) else {
        let message = format!("this member, `{name}`, is not among them");
        return Err(values.wrong(FLAG, message).hint(format!("add {name}={}", join(own))));
    };
    let (mut listed, mut own) = (listed.clone(), own.to_vec());
    listed.sort();
    own.sort();
    if listed != own {
        let message = format!("--{FLAG} says {} for `{name}`", join(&listed));
        return Err(values.wrong("initial-advertise-peer-urls", message));
    }
    Ok(members)
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn retention(values: &Values) -> Result<Retention, Failure> {
    const FLAG: &str = "auto-compaction-retention";
    let text = values.text(FLAG);
    match values.text("auto-compaction-mode") {
        "revision" => match values.number(FLAG, 0, i64::MAX as u64)? {
            0 => Ok(Retention::All),
            count => Ok(Retention::Revisions(count)),
        },
        "periodic" => {
            // A bare number is hours, as etcd reads it.
            let hours = text.parse::<u64>().map(|hours| format!("{hours}h"));
            hours.as_deref().unwrap_or(text).parse().map_err(|why| values.wrong(FLAG, why))
        }
        _ => Err(values.wrong("auto-compaction-mode", "write periodic or revision")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Result<Settings, Failure> {
        let given = Given(flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::read(&given, &environment)
    }

    #[test]
    fn without_a_word_it_serves_as_etcd_would() {
        let settings = read(&[], &[]).unwrap();
        assert_eq!((settings.name.as_str(), settings.data_dir.to_str()), ("default", Some("default.etcd")));
        assert_eq!(settings.listen_client, [Listen { address: "127.0.0.1:2379".parse().unwrap(), tls: false }]);
        assert_eq!(settings.cluster["default"][0].to_string(), "http://localhost:2380");
        assert_eq!((settings.heartbeat.as_millis(), settings.election.as_millis()), (100, 1000));
        assert_eq!((settings.quota_bytes, settings.retention), (2 << 30, Retention::All));
        assert!(settings.notes.is_empty());
    }

    #[test]
    fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
        let environment = [("ETCD_NAME", "b"), ("ETCD_DATA_DIR", ""), ("ETCD_NONSENSE", "1"), ("ETCD_MAX_WALS", "3")];
        let settings = read(&[("name", "a")], &environment).unwrap();
        assert_eq!((settings.name.as_str(), settings.data_dir.to_str()), ("a", Some("a.etcd")));
        assert_eq!(settings.notes.len(), 3, "{:?}", settings.notes);
        let settings = read(&[], &environment).unwrap();
        assert_eq!(settings.name, "b");
    }

    #[test]
    fn a_cluster_names_this_member_with_its_addresses() {
        let three = "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380";
        let own = ("initial-advertise-peer-urls", "http://10.0.0.2:2380");
        let settings = read(&[("name", "b"), ("initial-cluster", three), own], &[]).unwrap();
        assert_eq!(settings.cluster.len(), 3);
        let failure = read(&[("name", "d"), ("initial-cluster", three), own], &[]).unwrap_err();
        assert!(failure.error.message.contains("--initial-cluster"), "{failure:?}");
        let failure = read(&[("name", "a"), ("initial-cluster", three), own], &[]).unwrap_err();
        assert_eq!(failure.error.field.as_deref(), Some("--initial-advertise-peer-urls"));
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (flag, value) in [
            ("listen-client-urls", "http://example.net:2379"),
            ("listen-peer-urls", "localhost:2380"),
            ("listen-peer-urls", "https://127.0.0.1:2380"),
            ("advertise-client-urls", "http://a:70000"),
            ("initial-cluster", "default"),
            ("initial-cluster-state", "old"),
            ("heartbeat-interval", "0"),
            ("election-timeout", "400"),
            ("max-txn-ops", "many"),
            ("auto-compaction-mode", "sometimes"),
            ("auto-compaction-retention", "1 week"),
            ("client-cert-auth", "perhaps"),
            ("client-cert-auth", "true"),
            ("key-file", "key.pem"),
            ("log-level", "loud"),
            ("discovery", "https://discovery.etcd.io/x"),
            ("force-new-cluster", "true"),
            ("auth-token", "jwt,pub-key=x"),
        ] {
            let flags = [(flag, value), ("advertise-client-urls", "http://a:1")];
            let flags = if flag == "advertise-client-urls" { &flags[..1] } else { &flags[..] };
            let failure = read(flags, &[]).unwrap_err();
            let field = failure.error.field.clone().unwrap_or_default();
            assert!(failure.exit_code() == 2 && field.starts_with("--"), "{flag}={value}: {failure:?}");
        }
        let fine = [("force-new-cluster", "false"), ("auth-token", "simple"), ("proxy", "off"), ("auto-tls", "false")];
        assert!(read(&fine, &[]).unwrap().notes.is_empty());
    }

    #[test]
    fn retention_is_read_as_etcd_reads_it() {
        let retention = |mode: &str, text: &str| {
            let flags = [("auto-compaction-mode", mode), ("auto-compaction-retention", text)];
            read(&flags, &[]).map(|settings| settings.retention)
        };
        assert_eq!(retention("periodic", "2").unwrap(), Retention::For(Duration::from_hours(2)));
        assert_eq!(retention("periodic", "1h30m").unwrap(), Retention::For(Duration::from_mins(90)));
        assert_eq!(retention("revision", "1000").unwrap(), Retention::Revisions(1000));
        assert_eq!(retention("revision", "0").unwrap(), Retention::All);
        assert!(retention("revision", "1h").is_err() && retention("periodic", "h").is_err());
    }
}
