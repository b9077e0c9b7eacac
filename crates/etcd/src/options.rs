//! Where a cluster is and how to come in.

use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::Error;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Longer than etcd's own limit of 7 s (5 s and two elections of 1 s), so that the server's word comes first.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// A silent connection is asked for a life sign this often. etcd hangs up on who asks more often than each 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIME_MAX: Duration = Duration::from_secs(5);

/// What may be under way unread, for one stream and for the connection: a stream that nobody reads, such as a large
/// answer to a caller who is gone, must not stop the others.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Options {
    /// `http://host:port`, `https://host:port` or `host:port`; at least one. Tried in order, and again from the first.
    pub endpoints: Vec<String>,
    /// With it, `host:port` means `https`.
    pub tls: Option<Tls>,
    pub login: Option<Login>,
    /// For one endpoint.
    pub connect_time_max: Duration,
    /// For one call, with all its attempts.
    pub request_time_max: Duration,
}

impl Options {
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            login: None,
            connect_time_max: CONNECT_TIME_MAX,
            request_time_max: REQUEST_TIME_MAX,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Tls {
    /// Who vouches for the cluster's certificates; PEM, one or more. Nobody else is believed.
    pub authority: Vec<u8>,
    /// What the cluster is shown when it asks for a certificate.
    pub identity: Option<Identity>,
    /// The name in the cluster's certificates, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

#[derive(Clone)]
pub struct Identity {
    /// PEM, the chain from the leaf up.
    pub certificate: Vec<u8>,
    /// PEM.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Options {
    /// Each endpoint as written, with how to connect to it.
    pub(crate) fn dialled(&self) -> Result<Vec<(String, Endpoint)>, Error> {
        if self.endpoints.is_empty() {
            return Err(Error::NoEndpoint);
        }
        self.endpoints.iter().map(|endpoint| Ok((endpoint.clone(), self.dial(endpoint)?))).collect()
    }

    fn dial(&self, endpoint: &str) -> Result<Endpoint, Error> {
        let wrong = |reason: String| Error::Endpoint { endpoint: endpoint.to_owned(), reason };
        let uri = match endpoint.split_once("://") {
            Some(("http" | "https", _)) => endpoint.to_owned(),
            Some((scheme, _)) => return Err(wrong(format!("{scheme} is neither http nor https"))),
            None if self.tls.is_some() => format!("https://{endpoint}"),
            None => format!("http://{endpoint}"),
        };
        let secure = uri.starts_with("https://");
        let dialled = Endpoint::from_shared(uri).map_err(|error| wrong(reason(&error)))?;
        if dialled.uri().host().is_none_or(str::is_empty) || dialled.uri().port_u16().is_none() {
            return Err(wrong("it names no host and port".to_owned()));
        }
        let dialled = dialled
            .connect_timeout(self.connect_time_max)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        if !secure {
            return Ok(dialled);
        }
        let Some(tls) = &self.tls else { return Err(Error::NoAuthority { endpoint: endpoint.to_owned() }) };
        dialled.tls_config(tls.config()).map_err(|error| Error::Tls { reason: reason(&error) })
    }
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authority));
        if let Some(Identity { certificate, key }) = &self.identity {
            config = config.identity(tonic::transport::Identity::from_pem(certificate, key));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        config
    }
}

/// An error with all that led to it: the transport tells the reason last.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !told.ends_with(&next) {
            told = format!("{told}: {next}");
        }
        source = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> Tls {
        Tls { authority: Vec::new(), identity: None, server_name: None }
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in ["http://127.0.0.1:2379", "localhost:2379", "http://[::1]:2379"] {
            Options::new([good]).dialled().unwrap();
        }
        for bad in ["", "localhost", "http://", "http://:2379", "ftp://a:1", "http://a:99999", "a b:1"] {
            assert!(matches!(Options::new([bad]).dialled(), Err(Error::Endpoint { .. })), "{bad}");
        }
        assert!(matches!(Options::new([""; 0]).dialled(), Err(Error::NoEndpoint)));
    }

    #[test]
    fn tls_is_wanted_by_the_endpoint_or_by_the_options() {
        assert!(matches!(Options::new(["https://a:1"]).dialled(), Err(Error::NoAuthority { .. })));
        let scheme = |endpoint: &str| {
            let options = Options { tls: Some(tls()), ..Options::new([endpoint]) };
            options.dialled().unwrap()[0].1.uri().scheme_str().unwrap().to_owned()
        };
        assert_eq!((scheme("a:1"), scheme("http://a:1")), ("https".to_owned(), "http".to_owned()));
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = Login { user: "root".into(), password: "hidden".into() };
        let identity = Identity { certificate: b"hidden".to_vec(), key: b"hidden".to_vec() };
        let shown = format!("{:?} {login:?}", Tls { identity: Some(identity), ..tls() });
        assert!(shown.contains("root") && !shown.contains("hidden") && !shown.contains("104"), "{shown}");
    }
}
