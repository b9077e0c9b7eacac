//! A registry over HTTP, of the OCI distribution specification 1.1, "Pulling manifests" and "Pulling blobs".
//!
//! Names of registries come from tenants, so every answer is bounded in bytes and time before it is read, redirects are
//! few and never leave HTTPS, and nothing an answer says is believed before it is hashed.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;

use super::{BlobReader, Root, Source};
use crate::credentials::{Credentials, Login};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::{MANIFEST_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::reference::{Name, Reference, host_of, is_loopback_host};
use crate::retry;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Silence in the middle of an answer.
const READ_TIME_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 5;
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const USER_AGENT: &str = concat!("photon/", env!("CARGO_PKG_VERSION"));

/// One image's repository in a registry.
pub struct Registry {
    reference: Reference,
    name: Name,
    base: String,
    client: reqwest::Client,
    login: Option<Login>,
    /// The `Authorization` that worked last. Secret.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    pub fn new(name: Name, credentials: &Credentials) -> Result<Self> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Lost races are fine: whoever won installed one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let is_loopback = name.is_loopback();
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            let is_plain = attempt.url().scheme() != "https";
            let stays_here =
                is_loopback && attempt.url().host_str().is_some_and(|host| is_loopback_host(host_of(host)));
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else if is_plain && !stays_here {
                attempt.error("redirected from HTTPS to something else")
            } else {
                attempt.follow()
            }
        });
        let mut client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIME_MAX)
            .read_timeout(READ_TIME_MAX)
            .redirect(redirects);
        if is_loopback {
            client = client.no_proxy();
        }
        let client =
            client.build().map_err(|error| Error::Reach { registry: name.registry.clone(), detail: chain(&error) })?;
        let host = if name.registry == "docker.io" { DOCKER_HUB_HOST } else { &name.registry };
        let scheme = if is_loopback { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}", name.repository);
        let login = credentials.for_registry(&name.registry).cloned();
        let reference = Reference::Registry(name.clone());
        Ok(Self { reference, name, base, client, login, authorization: Mutex::new(None) })
    }

    /// One GET; a refusal that names a way in is answered once.
    async fn get(&self, path: &str, what: &str, accept: Option<&str>) -> Result<Response> {
        let url = format!("{}/{path}", self.base);
        let send = async |authorization: Option<String>| {
            let mut request = self.client.get(&url);
            if let Some(accept) = accept {
                request = request.header(header::ACCEPT, accept);
            }
            if let Some(authorization) = authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            request.send().await.map_err(|error| self.unreachable(&error))
        };
        let known = self.authorization.lock().clone();
        let mut response = send(known).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let authorization = self.authorize(&response).await?;
            response = send(Some(authorization.clone())).await?;
            if response.status().is_success() {
                *self.authorization.lock() = Some(authorization);
            }
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused()),
            StatusCode::NOT_FOUND => Err(Error::FindImage {
                reference: self.reference.to_string(),
                detail: format!("{} has no {what}", self.name.registry),
            }),
            status => {
                Err(Error::Answer { registry: self.name.registry.clone(), what: what.into(), status: status.as_u16() })
            }
        }
    }

    /// Follows a `WWW-Authenticate` (RFC 9110, section 11.6.1): `Basic` with our login, or `Bearer` with a token.
    async fn authorize(&self, refusal: &Response) -> Result<String> {
        let challenges = refusal.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            challenges.iter().filter_map(|value| value.to_str().ok()).filter_map(Challenge::parse).collect();
        let basic = self.login.as_ref().map(basic);
        for challenge in &challenges {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                return self.token(challenge, basic).await.map(|token| format!("Bearer {token}"));
            }
        }
        let takes_basic = challenges.iter().any(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"));
        basic.filter(|_| takes_basic).ok_or_else(|| self.refused())
    }

    /// Of Docker's token authentication specification.
    async fn token(&self, challenge: &Challenge, basic: Option<String>) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let realm = challenge.get("realm").and_then(|realm| reqwest::Url::parse(realm).ok());
        let mut realm = realm.filter(|realm| self.may_ask(realm)).ok_or_else(|| self.refused())?;
        let scope = format!("repository:{}:pull", self.name.repository);
        realm.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = challenge.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.client.get(realm);
        if let Some(basic) = basic {
            request = request.header(header::AUTHORIZATION, basic);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(if status >= 500 || status == 429 {
                Error::Answer { registry: self.name.registry.clone(), what: "a token".into(), status }
            } else {
                self.refused()
            });
        }
        let body = self.read_bounded(response, "a token", TOKEN_BYTES_MAX).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| self.refused())?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.refused());
        }
        Ok(token)
    }

    /// A password goes over HTTPS, or stays on this machine where the registry is here too.
    fn may_ask(&self, realm: &reqwest::Url) -> bool {
        let is_here = realm.host_str().is_some_and(|host| is_loopback_host(host_of(host)));
        realm.scheme() == "https" || (realm.scheme() == "http" && self.name.is_loopback() && is_here)
    }

    async fn read_bounded(&self, response: Response, what: &str, bytes_max: u64) -> Result<Bytes> {
        let too_large = |found| Error::LimitSize { what: what.into(), found, limit: bytes_max };
        if let Some(length) = response.content_length().filter(|length| *length > bytes_max) {
            return Err(too_large(length));
        }
        let mut body = BytesMut::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.unreachable(&error))?;
            body.extend_from_slice(&chunk);
            if body.len() as u64 > bytes_max {
                return Err(too_large(body.len() as u64));
            }
        }
        Ok(body.freeze())
    }

    async fn document(&self, version: &str) -> Result<Bytes> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        retry::transient(|| async {
            let what = format!("manifest {version}");
            let response = self.get(&format!("manifests/{version}"), &what, Some(&accept)).await?;
            self.read_bounded(response, &what, MANIFEST_BYTES_MAX).await
        })
        .await
    }

    fn refused(&self) -> Error {
        Error::Authorize { reference: self.reference.to_string(), registry: self.name.registry.clone() }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Reach { registry: self.name.registry.clone(), detail: chain(error) }
    }
}

#[async_trait]
impl Source for Registry {
    fn reference(&self) -> &Reference {
        &self.reference
    }

    async fn root(&self) -> Result<Root> {
        let bytes = self.document(&self.name.version()).await?;
        Ok(Root { bytes, digest: self.name.digest })
    }

    async fn manifest(&self, digest: &Digest) -> Result<Bytes> {
        self.document(&digest.to_string()).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader> {
        let what = format!("blob {digest}");
        let response = self.get(&format!("blobs/{digest}"), &what, None).await?;
        if let Some(found) = response.content_length().filter(|found| *found != size) {
            return Err(Error::VerifySize { what, wanted: size, found });
        }
        let stream = response.bytes_stream().map_err(|error| std::io::Error::other(chain(&error)));
        Ok(Box::pin(tokio_util::io::StreamReader::new(Box::pin(stream))))
    }
}

fn basic(login: &Login) -> String {
    let pair = format!("{}:{}", login.user, login.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// An error and its causes on one line; the first alone says only that a request failed.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// One way in that a registry offers.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// `Bearer realm="https://auth.example/token",service="registry.example"`
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            if rest.is_empty() {
                break;
            }
            let (key, after) = rest.split_once('=')?;
            let value;
            if let Some(quoted) = after.strip_prefix('"') {
                let end = quoted.find('"')?;
                value = &quoted[..end];
                rest = &quoted[end + 1..];
            } else {
                let end = after.find(',').unwrap_or(after.len());
                value = after[..end].trim();
                rest = &after[end..];
            }
            parameters.push((key.trim().to_ascii_lowercase(), value.to_owned()));
        }
        (!scheme.is_empty()).then(|| Self { scheme: scheme.to_owned(), parameters })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let challenge =
            Challenge::parse(r#"Bearer realm="https://a.example/t",service=reg, scope="repository:a,b:pull""#).unwrap();
        assert_eq!(challenge.scheme, "Bearer");
        assert_eq!(challenge.get("realm"), Some("https://a.example/t"));
        assert_eq!(challenge.get("service"), Some("reg"));
        assert_eq!(challenge.get("scope"), Some("repository:a,b:pull"));
        assert_eq!(Challenge::parse("Basic").unwrap().parameters, []);
        assert!(Challenge::parse("").is_none());
        assert!(Challenge::parse(r#"Bearer realm="open"#).is_none());
    }

    #[test]
    fn a_password_does_not_leave_by_plain_http() {
        let registry = |text: &str| {
            let Reference::Registry(name) = text.parse().unwrap() else { panic!() };
            Registry::new(name, &Credentials::default()).unwrap()
        };
        let may = |text: &str, realm: &str| registry(text).may_ask(&reqwest::Url::parse(realm).unwrap());
        assert!(may("a.example/x", "https://b.example/t"));
        assert!(!may("a.example/x", "http://b.example/t"));
        assert!(!may("a.example/x", "http://127.0.0.1/t"));
        assert!(may("127.0.0.1:5000/x", "http://127.0.0.1:5001/t"));
        assert!(!may("127.0.0.1:5000/x", "http://b.example/t"));
        assert!(!may("127.0.0.1:5000/x", "file:///etc/passwd"));
    }
}
