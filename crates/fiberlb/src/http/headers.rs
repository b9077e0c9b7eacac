//! What is taken from a head and what is put in before it goes on.
//!
//! Taken: what is meant for one hop only (RFC 9110, section 7.6.1), and whatever claims to know the client, since only
//! the ingress does. Put in: who the client is, how it came and which host it asked for. The rest is not touched.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Uri, Version};

use super::problem::Problem;
use crate::host;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Claims about the client, in the spelling that a CGI-like program would see: `_` and `-` are one there.
const CLAIMS: [&str; 10] = [
    "forwarded",
    "proxy",
    "x-forwarded-by",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
];
/// What a `Connection` header may not take away: the next hop would read the request otherwise.
const KEPT: [HeaderName; 3] = [HOST, CONTENT_LENGTH, COOKIE];

/// The host a request asks for, as configured names are written, and as the client wrote it.
pub struct Target {
    pub host: String,
    pub written: HeaderValue,
}

/// Finds the host: that of the request line where it has one (absolute form, HTTP/2), else the `Host` header.
pub fn target(parts: &Parts) -> Result<Target, Problem> {
    let mut headers = parts.headers.get_all(HOST).iter();
    let (header, further) = (headers.next(), headers.next());
    if further.is_some() {
        return Err(Problem::BadHost);
    }
    let written = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| Problem::BadHost)?,
        None => header.cloned().ok_or(Problem::BadHost)?,
    };
    let host = written.to_str().ok().and_then(host::of_authority).ok_or(Problem::BadHost)?;
    Ok(Target { host, written })
}

/// The protocol that the client wants to go over to, where that may be passed on.
///
/// `h2c` may not: what came after would be requests that nobody here reads.
pub fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 || !connection_tokens(&parts.headers).any(|token| token == "upgrade") {
        return None;
    }
    let mut values = parts.headers.get_all(UPGRADE).iter();
    let (wanted, further) = (values.next()?, values.next());
    let text = wanted.to_str().ok()?;
    let passable = further.is_none() && !text.contains(',') && !text.trim().to_ascii_lowercase().starts_with("h2");
    passable.then(|| wanted.clone())
}

/// Makes a client's head into the one that the backend gets.
pub fn to_backend(parts: &mut Parts, target: &Target, peer: IpAddr, upgrade: Option<&HeaderValue>) {
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let headers = &mut parts.headers;
    remove_hop_by_hop(headers);
    headers.remove(PROXY_AUTHORIZATION);
    // Whoever reads the body first says "go on": here that is the ingress, once the backend wants the body.
    headers.remove(EXPECT);
    headers.remove(HTTP2_SETTINGS);
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| CLAIMS.contains(&name.as_str().replace('_', "-").as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    join_cookies(headers);
    headers.insert(HOST, target.written.clone());
    if let Ok(peer) = HeaderValue::from_str(&peer.to_canonical().to_string()) {
        headers.insert(FORWARDED_FOR, peer);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(FORWARDED_HOST, target.written.clone());
    set_upgrade(headers, upgrade);
}

/// Makes a backend's head into the one that the client gets.
pub fn to_client(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    remove_hop_by_hop(headers);
    set_upgrade(headers, upgrade);
}

fn set_upgrade(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade.clone());
    }
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in named.into_iter().chain([
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        FORWARDED,
    ]) {
        headers.remove(name);
    }
}

/// HTTP/2 clients may send cookies in several lines, HTTP/1.1 knows one; RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Path and query alone, as a server that is no proxy expects them.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn passed(headers: &[(&str, &str)]) -> Vec<String> {
        let mut parts = parts("/x?y", headers);
        let target = target(&parts).unwrap();
        let upgrade = upgrade(&parts);
        to_backend(&mut parts, &target, "192.0.2.1".parse().unwrap(), upgrade.as_ref());
        assert_eq!(parts.uri, "/x?y");
        let mut lines: Vec<String> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    const PUT_IN: [&str; 4] =
        ["host: A.test:80", "x-forwarded-for: 192.0.2.1", "x-forwarded-host: A.test:80", "x-forwarded-proto: http"];

    #[test]
    fn one_hop_headers_and_claims_about_the_client_are_taken_out() {
        let lines = passed(&[
            ("host", "A.test:80"),
            ("connection", "close, X-Secret, Host, content-length"),
            ("connection", "te"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("expect", "100-continue"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_proto", "https"),
            ("x-real-ip", "1.1.1.1"),
            ("proxy", "http://evil"),
        ]);
        assert_eq!(lines, PUT_IN);
    }

    #[test]
    fn the_rest_is_passed_on() {
        let lines = passed(&[
            ("host", "A.test:80"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded", "mine"),
        ]);
        let mut expected: Vec<&str> = PUT_IN.to_vec();
        expected.extend(["content-length: 3", "authorization: Bearer x", "cookie: a=1; b=2", "x-forwarded: mine"]);
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }

    #[test]
    fn upgrades_are_passed_on_except_to_http2() {
        let wanted = |connection: &str, to: &str| {
            upgrade(&parts("/", &[("host", "a"), ("connection", connection), ("upgrade", to)])).is_some()
        };
        assert!(wanted("keep-alive, Upgrade", "websocket"));
        assert!(!wanted("keep-alive", "websocket"));
        for to in ["h2c", "H2C", " h2c", "websocket, h2c", "h2"] {
            assert!(!wanted("upgrade", to), "{to}");
        }
        let lines = passed(&[("host", "A.test:80"), ("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(lines.contains(&"connection: upgrade".into()) && lines.contains(&"upgrade: websocket".into()));
    }

    #[test]
    fn the_request_line_has_the_last_word_about_the_host() {
        let host = |uri: &str, headers: &[(&str, &str)]| target(&parts(uri, headers)).map(|target| target.host).ok();
        assert_eq!(host("http://B.test:81/x", &[("host", "a.test")]).as_deref(), Some("b.test"));
        assert_eq!(host("/x", &[("host", "A.test.")]).as_deref(), Some("a.test"));
        assert_eq!(host("http://b.test/x", &[]).as_deref(), Some("b.test"));
        assert_eq!(host("/x", &[]), None);
        assert_eq!(host("/x", &[("host", "a"), ("host", "a")]), None);
        assert_eq!(host("/x", &[("host", "a@b")]), None);
        assert_eq!(host("http://user@b.test/x", &[("host", "a.test")]), None);
        assert_eq!(host("/x", &[("host", "")]), None);
    }
}
