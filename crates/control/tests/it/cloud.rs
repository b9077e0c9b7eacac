//! A whole control plane over a store in memory, with two tenants that must not see each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control::{Body, Config, Handle, Limits, Parts, Service, Uploads};
use futures::StreamExt;
use http::{Method, StatusCode};
use model::{Error, Id, Row, Scope};
use parking_lot::Mutex;
use reconcile::{Door, Origin, Rows, Verb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::Clock;

use crate::kinds;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Blobs in memory, by project and digest.
#[derive(Default)]
pub struct Blobs(Mutex<BTreeMap<(Id, String), Vec<u8>>>);

#[async_trait]
impl Uploads for Blobs {
    async fn has(&self, project: &Id, digest: &str) -> Result<bool, Error> {
        Ok(self.0.lock().contains_key(&(project.clone(), digest.to_owned())))
    }

    async fn put(&self, project: &Id, digest: &str, mut body: Body) -> Result<bool, Error> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| Error::invalid("body", error.to_string()))?);
        }
        let hex = Sha256::digest(&bytes).iter().fold(String::new(), |out, byte| format!("{out}{byte:02x}"));
        if digest != format!("sha256:{hex}") {
            return Err(Error::invalid("digest", "the digest is another"));
        }
        Ok(self.0.lock().insert((project.clone(), digest.to_owned()), bytes).is_none())
    }
}

/// One tenant's rows and tokens.
pub struct Tenant {
    pub org: Row,
    pub project: Row,
    pub scope: Scope,
    pub thing: Row,
    pub token: String,
    pub token_id: Id,
    pub read_only: String,
}

pub struct Cloud {
    pub handle: Handle,
    pub base: String,
    pub door: Door,
    pub rows: Rows,
    pub ca: PathBuf,
    pub admin: String,
    pub one: Tenant,
    pub two: Tenant,
    pub client: reqwest::Client,
    _folder: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts a problem document with this status and code, and gives it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().unwrap());
        for field in ["type", "title", "detail", "number", "message", "why", "hint", "retryable"] {
            assert!(problem.get(field).is_some(), "{field} in {problem}");
        }
        problem
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }
}

pub fn origin() -> Origin {
    Origin::system("test")
}

pub async fn create(door: &Door, kind: &str, scope: &Scope, name: &str, spec: Value) -> Row {
    let (kind, scope, name) = (kind.to_owned(), scope.clone(), name.to_owned());
    door.one(origin(), Verb::Create { kind, scope, name, spec, owner: None }).await.unwrap().row()
}

pub async fn token(door: &Door, scope: &Scope, name: &str, mut spec: Value) -> (String, Id) {
    let text = iam::token::generate();
    spec["hash"] = iam::token::hash(&text).into();
    let row = create(door, iam::token::KIND, scope, name, spec).await;
    (text, row.id)
}

async fn tenant(door: &Door, name: &str) -> Tenant {
    let org = create(door, "tenant", &Scope::CLOUD, name, json!({})).await;
    let project = create(door, "area", &org.inner_scope(), &format!("{name}-area"), json!({})).await;
    let scope = project.inner_scope();
    let thing =
        create(door, "thing", &scope, &format!("{name}-thing"), json!({"text": format!("secret of {name}")})).await;
    let (token, token_id) = token(door, &scope, &format!("{name}-token"), json!({})).await;
    let (read_only, _) = self::token(door, &scope, &format!("{name}-reader"), json!({"read_only": true})).await;
    Tenant { org, project, scope, thing, token, token_id, read_only }
}

impl Cloud {
    pub async fn open() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        // Another test of this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::real();
        let store = Arc::new(store::memory::Memory::new());
        let door = Door::new(store.clone(), kinds::registry(), clock.clone());
        let (rows, changes) = Rows::follow(store).await.unwrap();
        let ca = iam::Ca::open_or_create(folder.path(), clock).unwrap();
        let (admin, _) = token(&door, &Scope::CLOUD, "admin", json!({})).await;
        let one = tenant(&door, "one").await;
        let two = tenant(&door, "two").await;
        let parts = Parts {
            door: door.clone(),
            rows: rows.clone(),
            changes,
            uploads: Arc::new(Blobs::default()),
            info: Arc::new(|| json!({"version": "0.1", "data_dir": "/somewhere"})),
            config: Arc::new(|| json!([{"key": "api.listen", "value": "x", "origin": "default"}])),
            ca: ca.clone(),
            version: "0.1.0".to_owned(),
        };
        let config = Config { limits, ..Config::new(([127, 0, 0, 1], 0).into()) };
        let handle = Service::open(config, parts).await.unwrap();
        let base = format!("https://localhost:{}", handle.addr.port());
        let tls = iam::client_config(&ca.certificate_file()).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(PATIENCE).build().unwrap();
        let ca = ca.certificate_file();
        Self { handle, base, door, rows, ca, admin, one, two, client, _folder: folder }
    }

    pub fn request(&self, token: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(token, Method::GET, path)).await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(token, Method::POST, path).json(body)).await
    }

    pub async fn put(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(token, Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(token, Method::DELETE, path)).await
    }

    /// A thing of the first tenant.
    pub async fn thing(&self, name: &str) -> Value {
        let body = json!({"scope": self.one.scope, "name": name, "spec": {"text": name}});
        self.post(&self.one.token, "/v1/things", &body).await.ok(201)
    }

    pub async fn revision(&self) -> u64 {
        self.door.store().status().await.unwrap().revision.0
    }

    /// Waits until no turn writes any more.
    pub async fn quiet(&self) -> u64 {
        let mut last = self.revision().await;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = self.revision().await;
            if now == last {
                return now;
            }
            last = now;
        }
    }
}
