//! Where a member is reached.

use std::fmt;
use std::str::FromStr;

/// `http://host:port` or `https://host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{url:?} is no address of a member: {why}")]
pub struct AddressError {
    pub url: String,
    pub why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let fault = |why| AddressError { url: url.to_owned(), why };
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(fault("it has to begin with http:// or https://")),
        };
        let (host, port) = rest.rsplit_once(':').ok_or(fault("the port is missing"))?;
        let port = port.parse().map_err(|_| fault("the port has to be a number and the last thing in it"))?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').ok_or(fault("the bracket is not closed"))?,
            None if host.contains(':') => return Err(fault("an IPv6 address needs brackets")),
            None => host,
        };
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(fault("the host is not a name and not an address"));
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for url in ["http://localhost:2380", "https://10.0.0.1:1", "http://[::1]:65535"] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), url);
        }
        for url in [
            "localhost:2380",
            "http://localhost",
            "http://:1",
            "http://::1:1",
            "http://a:1/x",
            "http://[::1:1",
            "http://a b:1",
        ] {
            assert!(url.parse::<Address>().is_err(), "{url}");
        }
    }
}
