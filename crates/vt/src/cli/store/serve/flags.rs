//! The flags of `vt store serve`: etcd's names, etcd's defaults, etcd's environment variables, so that it can stand where
//! the `etcd` program stood. Names and defaults as in the help of etcd 3.4 and 3.5.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Used,
    /// Accepted and without effect; why that does no harm.
    Ignored(&'static str),
    /// What would not be as asked, or what to do instead. The flag's default, or `false`, asks for nothing and is accepted.
    Refused(&'static str),
}

/// One flag of etcd.
#[derive(Debug)]
pub struct Flag {
    /// Without the dashes. The environment variable is `ETCD_` and the name in capitals with `_`.
    pub name: &'static str,
    /// As it is written on a command line. Empty: not set.
    pub default: &'static str,
    /// What its value is called in help; empty for a switch, which also takes `=true` and `=false`.
    pub value: &'static str,
    pub about: &'static str,
    pub fate: Fate,
}

impl Flag {
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    fn argument(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).action(ArgAction::Set).overrides_with(self.name);
        let arg = if self.value.is_empty() {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
        } else {
            arg.num_args(1).value_name(self.value)
        };
        let about = if self.default.is_empty() {
            self.about.to_owned()
        } else {
            format!("{} [default: {}]", self.about, self.default)
        };
        arg.help(about).hide(self.fate != Fate::Used)
    }
}

const fn used(name: &'static str, value: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag { name, default, value, about, fate: Fate::Used }
}

const fn ignored(name: &'static str, value: &'static str, why: &'static str) -> Flag {
    Flag { name, default: "", value, about: "", fate: Fate::Ignored(why) }
}

const fn refused(name: &'static str, value: &'static str, default: &'static str, why: &'static str) -> Flag {
    Flag { name, default, value, about: "", fate: Fate::Refused(why) }
}

const OWN_STORAGE: &str = "it tunes etcd's own storage or log";
const OWN_LIMIT: &str = "ChainFire has limits of its own there";

/// Every flag of etcd 3.4 and 3.5.
pub const FLAGS: &[Flag] = &[
    used("name", "NAME", "default", "This member's name, unique in the cluster"),
    used("data-dir", "DIR", "NAME.etcd", "Folder of everything it writes"),
    used("listen-client-urls", "URLS", "http://localhost:2379", "Where clients are served, separated by commas"),
    used("advertise-client-urls", "URLS", "http://localhost:2379", "Where clients reach this member"),
    used("listen-peer-urls", "URLS", "http://localhost:2380", "Where other members are served"),
    used("initial-advertise-peer-urls", "URLS", "http://localhost:2380", "Where other members reach this one"),
    used("initial-cluster", "NAME=URL,...", "NAME=URL of this member", "The members of a new cluster"),
    used("initial-cluster-state", "STATE", "new", "new, or existing to join a cluster that runs"),
    used("initial-cluster-token", "TEXT", "etcd-cluster", "Tells clusters apart whose members have equal addresses"),
    used("cert-file", "FILE", "", "Certificate for clients, PEM"),
    used("key-file", "FILE", "", "Its private key, PEM"),
    used("trusted-ca-file", "FILE", "", "Authorities of client certificates, PEM"),
    used("client-cert-auth", "", "", "Clients must show a certificate"),
    used("peer-cert-file", "FILE", "", "Certificate for other members, PEM"),
    used("peer-key-file", "FILE", "", "Its private key, PEM"),
    used("peer-trusted-ca-file", "FILE", "", "Authorities of the other members' certificates, PEM"),
    used("peer-client-cert-auth", "", "", "Other members must show a certificate"),
    used("heartbeat-interval", "MS", "100", "Between two life signs of the leader"),
    used("election-timeout", "MS", "1000", "Without a life sign for so long, another leader is chosen"),
    used("snapshot-count", "ENTRIES", "10000", "Entries of the log after which it is cut behind a snapshot"),
    used("quota-backend-bytes", "BYTES", "0", "Writes are refused beyond this size; 0 is 2 GiB"),
    used("max-txn-ops", "COUNT", "128", "Operations of one transaction"),
    used("max-request-bytes", "BYTES", "1572864", "Bytes of one request"),
    used("auto-compaction-mode", "MODE", "periodic", "periodic or revision: what the retention counts"),
    used("auto-compaction-retention", "AMOUNT", "0", "History that stays: 1h, 30m, hours, or revisions; 0 keeps all"),
    used("listen-metrics-urls", "URLS", "", "Where /metrics and /health are served besides"),
    used("log-level", "LEVEL", "info", "debug, info, warn or error"),
    ignored("logger", "NAME", "there is one logger"),
    ignored("log-outputs", "NAMES", "the log goes to standard error"),
    ignored("log-package-levels", "LEVELS", "VT_LOG does the same"),
    ignored("debug", "", "--log-level=debug does the same"),
    ignored("log-format", "NAME", "there is one format"),
    ignored("enable-log-rotation", "", "the log goes to standard error"),
    ignored("log-rotation-config-json", "JSON", "the log goes to standard error"),
    ignored("wal-dir", "DIR", "everything lies in --data-dir"),
    ignored("max-snapshots", "COUNT", OWN_STORAGE),
    ignored("max-wals", "COUNT", OWN_STORAGE),
    ignored("backend-batch-interval", "TIME", OWN_STORAGE),
    ignored("backend-batch-limit", "COUNT", OWN_STORAGE),
    ignored("backend-bbolt-freelist-type", "NAME", OWN_STORAGE),
    ignored("experimental-backend-bbolt-freelist-type", "NAME", OWN_STORAGE),
    ignored("experimental-bootstrap-defrag-threshold-megabytes", "MB", "there is nothing to defragment"),
    ignored("experimental-memory-mlock", "", OWN_STORAGE),
    ignored("experimental-snapshot-catchup-entries", "COUNT", OWN_STORAGE),
    ignored("snapshot-catchup-entries", "COUNT", OWN_STORAGE),
    ignored("unsafe-no-fsync", "", "what is answered is always on disk"),
    ignored("grpc-keepalive-min-time", "TIME", OWN_LIMIT),
    ignored("grpc-keepalive-interval", "TIME", OWN_LIMIT),
    ignored("grpc-keepalive-timeout", "TIME", OWN_LIMIT),
    ignored("max-concurrent-streams", "COUNT", OWN_LIMIT),
    ignored("socket-reuse-port", "", "addresses are not shared"),
    ignored("socket-reuse-address", "", "addresses are reused anyway"),
    ignored("strict-reconfig-check", "", "it is always on"),
    ignored("pre-vote", "", "it is always on"),
    ignored("initial-election-tick-advance", "", "the first election is soon anyway"),
    ignored("enable-v2", "", "there is no v2 API"),
    ignored("experimental-enable-v2v3", "PREFIX", "there is no v2 API"),
    ignored("enable-pprof", "", "there is no profiler to serve"),
    ignored("metrics", "LEVEL", "there is one set of metrics"),
    ignored("experimental-initial-corrupt-check", "", "checksums are always checked"),
    ignored("experimental-corrupt-check-time", "TIME", "checksums are always checked"),
    ignored("experimental-compact-hash-check-enabled", "", "checksums are always checked"),
    ignored("experimental-compact-hash-check-time", "TIME", "checksums are always checked"),
    ignored("experimental-compaction-batch-limit", "COUNT", "compaction never stops other work"),
    ignored("experimental-compaction-sleep-interval", "TIME", "compaction never stops other work"),
    ignored("experimental-peer-skip-client-san-verification", "", "no name is asked of members who call"),
    ignored("experimental-watch-progress-notify-interval", "TIME", OWN_LIMIT),
    ignored("experimental-warning-apply-duration", "TIME", "it only moves a warning"),
    ignored("experimental-warning-unary-request-duration", "TIME", "it only moves a warning"),
    ignored("experimental-txn-mode-write-with-shared-buffer", "", OWN_STORAGE),
    ignored("experimental-max-learners", "COUNT", OWN_LIMIT),
    ignored("experimental-wait-cluster-ready-timeout", "TIME", "clients are served as soon as there is a leader"),
    ignored("experimental-downgrade-check-time", "TIME", "there is no downgrade"),
    ignored("experimental-stop-grpc-service-on-defrag", "", "there is nothing to defragment"),
    ignored("experimental-enable-lease-checkpoint", "", "a lease has its full time again after a change of leader"),
    ignored("experimental-enable-lease-checkpoint-persist", "", "a lease has its full time again after a restart"),
    ignored("v2-deprecation", "PHASE", "there is no v2 API"),
    ignored("bcrypt-cost", "COST", "passwords are hashed another way"),
    ignored("auth-token-ttl", "SECONDS", OWN_LIMIT),
    refused("config-file", "FILE", "", "give its settings as flags or as ETCD_* variables"),
    refused("discovery", "URL", "", "name the members with --initial-cluster"),
    refused("discovery-fallback", "MODE", "proxy", "name the members with --initial-cluster"),
    refused("discovery-proxy", "URL", "", "name the members with --initial-cluster"),
    refused("discovery-srv", "DOMAIN", "", "name the members with --initial-cluster"),
    refused("discovery-srv-name", "NAME", "", "name the members with --initial-cluster"),
    refused("proxy", "MODE", "off", "there is no proxy"),
    refused("proxy-failure-wait", "MS", "", "there is no proxy"),
    refused("proxy-refresh-interval", "MS", "", "there is no proxy"),
    refused("proxy-dial-timeout", "MS", "", "there is no proxy"),
    refused("proxy-write-timeout", "MS", "", "there is no proxy"),
    refused("proxy-read-timeout", "MS", "", "there is no proxy"),
    refused("force-new-cluster", "", "", "vt store snapshot and vt store restore make a new cluster of old data"),
    refused("auto-tls", "", "", "make a certificate and give it with --cert-file and --key-file"),
    refused("peer-auto-tls", "", "", "make a certificate and give it with --peer-cert-file and --peer-key-file"),
    refused("self-signed-cert-validity", "YEARS", "", "make a certificate and give it with --cert-file and --key-file"),
    refused("client-crl-file", "FILE", "", "lists of revoked certificates are not looked at"),
    refused("peer-crl-file", "FILE", "", "lists of revoked certificates are not looked at"),
    refused(
        "peer-cert-allowed-cn",
        "NAME",
        "",
        "names in certificates are not looked at; use an authority for members alone",
    ),
    refused(
        "peer-cert-allowed-hostname",
        "NAME",
        "",
        "names in certificates are not looked at; use an authority for members alone",
    ),
    refused(
        "client-cert-allowed-hostname",
        "NAME",
        "",
        "names in certificates are not looked at; use an authority of its own",
    ),
    refused("client-cert-file", "FILE", "", "members call with --peer-cert-file"),
    refused("client-key-file", "FILE", "", "members call with --peer-key-file"),
    refused("peer-client-cert-file", "FILE", "", "members call with --peer-cert-file"),
    refused("peer-client-key-file", "FILE", "", "members call with --peer-key-file"),
    refused("cipher-suites", "NAMES", "", "TLS 1.2 and 1.3 are spoken with the safe suites alone"),
    refused("tls-min-version", "VERSION", "TLS1.2", "TLS 1.2 and 1.3 are spoken"),
    refused("tls-max-version", "VERSION", "", "TLS 1.2 and 1.3 are spoken"),
    refused("cors", "ORIGINS", "", "browsers are not served"),
    refused("host-whitelist", "NAMES", "", "browsers are not served"),
    refused("auth-token", "KIND", "simple", "tokens are simple ones; leave it out"),
    refused("experimental-enable-distributed-tracing", "", "", "there is none"),
    refused("experimental-distributed-tracing-address", "ADDRESS", "", "there is none"),
    refused("experimental-distributed-tracing-service-name", "NAME", "", "there is none"),
    refused("experimental-distributed-tracing-instance-id", "ID", "", "there is none"),
    refused("experimental-distributed-tracing-sampling-rate", "RATE", "", "there is none"),
];

pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// What stood on the command line, by the flag's name.
#[derive(Clone, Debug, Default)]
pub struct Given(pub BTreeMap<&'static str, String>);

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in FLAGS {
            if let Some(value) = matches.get_one::<String>(flag.name) {
                self.0.insert(flag.name, value.clone());
            }
        }
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(Flag::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
