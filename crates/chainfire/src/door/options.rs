//! What a door is told when it opens.

use std::path::PathBuf;
use std::time::Duration;

use world::Clock;

/// Files in PEM. They are read again when they change.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities whose certificates clients may show.
    pub trusted_ca: Option<PathBuf>,
    /// Clients must show a certificate of a trusted authority. Its common name is the user when no token says otherwise.
    pub client_cert_auth: bool,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// `http://host:port` or `https://host:port`; the latter needs `tls`. Port 0 takes a free one.
    pub listen: Vec<String>,
    /// As `listen`; nothing but health, version and metrics is answered there.
    pub listen_metrics: Vec<String>,
    pub tls: Option<TlsFiles>,
    /// Told to clients as the server's version, in the form of a semantic version.
    pub version: String,
    /// Between two notifications of progress for a watch that asked for them.
    pub progress_interval: Duration,
    /// A token that nobody uses is forgotten after this time.
    pub token_ttl: Duration,
    /// Rounds of PBKDF2 for passwords set from now on.
    pub password_rounds: u32,
    /// From this size of the database on, nothing is put any more and an alarm rings.
    pub quota_bytes: Option<u64>,
    /// A lease that is asked for less lives this long.
    pub lease_ttl_seconds_min: u64,
    /// Connections at once; more wait until one of them ends.
    pub connections_max: usize,
    /// Calls at once on one connection.
    pub streams_max: u32,
    pub clock: Clock,
}

impl Options {
    /// The version of etcd's API that the door speaks, and who speaks it.
    pub const VERSION: &str = "3.5.21+chainfire";
    /// What `/version` tells of the cluster.
    pub const CLUSTER_VERSION: &str = "3.5.0";
    /// etcd's default.
    pub const PROGRESS_INTERVAL: Duration = Duration::from_mins(10);
    /// etcd's default.
    pub const TOKEN_TTL: Duration = Duration::from_mins(5);
    /// OWASP's advice of 2023 for PBKDF2-HMAC-SHA256.
    pub const PASSWORD_ROUNDS: u32 = 600_000;
    /// etcd's default.
    pub const QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;
    /// What etcd makes of its default election timeout: one and a half of a second, rounded up.
    pub const LEASE_TTL_SECONDS_MIN: u64 = 2;
    /// Below the usual limit of open files of a service.
    pub const CONNECTIONS_MAX: usize = 16_384;
    pub const STREAMS_MAX: u32 = 16_384;

    pub fn new(listen: impl IntoIterator<Item = String>) -> Self {
        Self {
            listen: listen.into_iter().collect(),
            listen_metrics: Vec::new(),
            tls: None,
            version: Self::VERSION.into(),
            progress_interval: Self::PROGRESS_INTERVAL,
            token_ttl: Self::TOKEN_TTL,
            password_rounds: Self::PASSWORD_ROUNDS,
            quota_bytes: None,
            lease_ttl_seconds_min: Self::LEASE_TTL_SECONDS_MIN,
            connections_max: Self::CONNECTIONS_MAX,
            streams_max: Self::STREAMS_MAX,
            clock: Clock::real(),
        }
    }
}
