//! Requests and their answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use model::{Code, Error};
use reqwest::{Method, Response, Url};
use serde_json::{Map, Value};

use super::item::{Item, Page};
use super::nouns::Noun;
use super::tls;
use crate::config::Settings;
use crate::failure::Failure;

/// How long a connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long an ordinary answer may take. Creating a release asks a registry first.
const ANSWER_DEADLINE: Duration = Duration::from_mins(2);
/// How long sending one blob may take.
const BLOB_DEADLINE: Duration = Duration::from_hours(1);
/// The longest that one request may ask the server to wait.
pub const WAIT_SECONDS_MAX: u64 = 600;
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Rows asked for at once.
const PAGE_ITEMS: &str = "200";
/// Pages of one list.
const PAGES_MAX: usize = 500;
/// How often a request that the server turned away for now is sent again.
const RETRIES_MAX: u32 = 4;
/// The longest pause that a server's `Retry-After` is believed.
const RETRY_PAUSE_SECONDS_MAX: u64 = 10;
/// A token is 49 characters; a file that holds more is not one.
const TOKEN_BYTES_MAX: usize = 4096;

/// One cloud's API.
#[derive(Clone, Debug)]
pub struct Api {
    base: Url,
    http: reqwest::Client,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) token: Option<String>,
}

/// A fresh idempotency key: sent with a mutation and with each of its repetitions.
pub fn key() -> String {
    world::random::hex(16)
}

impl Api {
    /// Connects to nothing yet: reads the authority and the token that the settings name.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        settings.contexts()?;
        let Some(address) = settings.get("api") else {
            return Err(Failure::new(Code::Unavailable, "no cloud is known here")
                .hint("vt up   starts one on this machine and writes its context"));
        };
        let base = Url::parse(address).ok().filter(|url| url.scheme() == "https" && url.host_str().is_some());
        let base = base.ok_or_else(|| {
            Failure::usage(format!("`{address}` is not the address of an API")).hint("write https://HOST:PORT")
        })?;
        let Some(ca_file) = settings.get("ca_file") else {
            return Err(
                Failure::usage("no authority is known for the API").hint("say --ca-file FILE, or set VT_CA_FILE")
            );
        };
        let tls = tls::config(Path::new(ca_file))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .connect_timeout(CONNECT_DEADLINE)
            // The API is reached directly or not at all: a proxy for the web has no business with its token.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("vt/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::internal(format!("no HTTP client: {error}")))?;
        Ok(Self { base, http, tls, token: token(settings)? })
    }

    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `path` below the base, which begins with `/`.
    pub(super) fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        // An empty value says nothing: the scope of the whole cloud is the one that is not named.
        let said: Vec<_> = query.iter().filter(|(_, value)| !value.is_empty()).collect();
        if !said.is_empty() {
            url.query_pairs_mut().extend_pairs(said);
        }
        url
    }

    pub(super) fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(path, query));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends, and again where the server says that it is busy and the request may be repeated.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let mut tries = 0;
        loop {
            let again = request.try_clone();
            let response =
                match request_once(self, again.ok_or_else(|| Error::internal("a stream is sent once"))?).await {
                    Ok(response) => response,
                    Err(failure) => return Err(failure),
                };
            let busy = matches!(response.status().as_u16(), 429 | 503);
            if !busy || tries >= RETRIES_MAX {
                return checked(response).await;
            }
            tries += 1;
            let asked =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            tokio::time::sleep(Duration::from_secs(asked.unwrap_or(1).min(RETRY_PAUSE_SECONDS_MAX))).await;
        }
    }

    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        json(self.send(self.request(Method::GET, path, query).timeout(ANSWER_DEADLINE)).await?).await
    }

    /// A GET that the server holds for up to `seconds`.
    pub async fn get_waiting(&self, path: &str, query: &[(&str, &str)], seconds: u64) -> Result<Value, Failure> {
        let deadline = Duration::from_secs(seconds) + ANSWER_DEADLINE;
        json(self.send(self.request(Method::GET, path, query).timeout(deadline)).await?).await
    }

    async fn mutate(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        version: Option<u64>,
        key: &str,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path, &[]).timeout(ANSWER_DEADLINE).header("idempotency-key", key);
        if let Some(version) = version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        json(self.send(request).await?).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.mutate(Method::POST, path, Some(body), None, &key()).await
    }

    /// Makes a row. `key` makes the act one act, however often it is sent.
    pub async fn create(
        &self,
        noun: Noun,
        scope: &model::Scope,
        name: &str,
        spec: &Value,
        key: &str,
    ) -> Result<Item, Failure> {
        let mut body = Map::new();
        body.insert("scope".into(), scope.to_string().into());
        if !name.is_empty() {
            body.insert("name".into(), name.into());
        }
        body.insert("spec".into(), spec.clone());
        Item::read(self.mutate(Method::POST, &format!("/v1/{}", noun.plural), Some(&body.into()), None, key).await?)
    }

    /// Changes a row's spec, unless someone else has changed it since `version`.
    pub async fn set(&self, noun: Noun, id: &str, spec: &Value, version: u64) -> Result<Item, Failure> {
        let body = serde_json::json!({ "spec": spec });
        Item::read(
            self.mutate(Method::PUT, &format!("/v1/{}/{id}", noun.plural), Some(&body), Some(version), &key()).await?,
        )
    }

    /// Asks a row to go.
    pub async fn delete(&self, noun: Noun, id: &str, version: Option<u64>) -> Result<Item, Failure> {
        Item::read(self.mutate(Method::DELETE, &format!("/v1/{}/{id}", noun.plural), None, version, &key()).await?)
    }

    pub async fn show(&self, noun: Noun, id: &str) -> Result<Item, Failure> {
        Item::read(self.get(&format!("/v1/{}/{id}", noun.plural), &[]).await?)
    }

    /// One page.
    pub async fn page(&self, noun: Noun, query: &[(&str, &str)]) -> Result<Page, Failure> {
        let mut answer = self.get(&format!("/v1/{}", noun.plural), query).await?;
        let next = answer.get("next").cloned().unwrap_or(Value::Null);
        let items = match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items.into_iter().map(Item::read).collect::<Result<_, _>>()?,
            _ => return Err(Error::internal("the answer is not a list").into()),
        };
        Ok(Page { items, next })
    }

    /// All pages.
    pub async fn list(&self, noun: Noun, query: &[(&str, &str)]) -> Result<Vec<Item>, Failure> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            query.push(("limit", PAGE_ITEMS));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let page = self.page(noun, &query).await?;
            all.extend(page.items);
            match page.next.as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(all),
            }
        }
        Err(Failure::new(Code::TooLarge, format!("more than {} rows", PAGES_MAX * 200))
            .hint("narrow the list with -a APP or --phase"))
    }

    /// A response whose body is read as it comes.
    pub(super) async fn open_stream(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path, query).header("accept", accept);
        checked(request_once(self, request).await?).await
    }

    /// True when the project has the blob.
    pub async fn has_blob(&self, project: &str, digest: &str) -> Result<bool, Failure> {
        let path = format!("/v1/projects/{project}/blobs/{digest}");
        let response = request_once(self, self.request(Method::HEAD, &path, &[]).timeout(ANSWER_DEADLINE)).await?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => checked(response).await.map(|_| true),
        }
    }

    /// Sends a blob. The server checks its digest.
    pub async fn put_blob(&self, project: &str, digest: &str, size: u64, body: reqwest::Body) -> Result<(), Failure> {
        let path = format!("/v1/projects/{project}/blobs/{digest}");
        let request = self
            .request(Method::PUT, &path, &[])
            .timeout(BLOB_DEADLINE)
            .header("idempotency-key", key())
            .header("content-type", "application/octet-stream")
            .header("content-length", size)
            .body(body);
        checked(request_once(self, request).await?).await?;
        Ok(())
    }
}

async fn request_once(api: &Api, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
    request.send().await.map_err(|error| unreachable_api(api.address(), &error))
}

fn unreachable_api(address: &str, error: &dyn std::error::Error) -> Failure {
    let mut why = String::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        why = next.to_string();
        cause = next.source();
    }
    let hint = if why.contains("certificate") || why.contains("Certificate") {
        "the API is not the one that wrote this context; `vt config show --origin` says which files are used"
    } else {
        "vt up   starts the cloud on this machine; `vt config show` says which address is used"
    };
    Failure::new(Code::Unavailable, format!("the cloud at {address} does not answer")).why(why).hint(hint)
}

/// The response when it is a good one; else what it says is wrong.
async fn checked(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let request_id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let body = body(response).await.unwrap_or_default();
    let problem = serde_json::from_slice::<Value>(&body).ok();
    if let Some(mut failure) = problem.as_ref().and_then(Failure::from_problem) {
        failure.request_id = failure.request_id.or(request_id);
        if failure.error.code == Code::Unauthenticated && failure.error.hint.is_empty() {
            failure.error.hint =
                "vt config show --origin   says which token is used; VT_TOKEN or --token-file gives another".into();
        }
        return Err(failure);
    }
    let code = Code::ALL.into_iter().find(|code| code.http_status() == status.as_u16()).unwrap_or(Code::Internal);
    let mut failure = Failure::new(code, format!("the cloud answered {status}"));
    failure.request_id = request_id;
    Err(failure)
}

async fn body(response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| Failure::new(Code::Unavailable, "the answer broke off").why(error.to_string()))?;
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::new(Code::TooLarge, "the answer is too large"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn json(response: Response) -> Result<Value, Failure> {
    let bytes = body(response).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| Error::internal(format!("the answer is not JSON: {error}")).into())
}

/// The token: itself, or the content of its file.
fn token(settings: &Settings) -> Result<Option<String>, Failure> {
    // A file that was named on the command line wins over a token further down.
    let file =
        settings.get("token_file").filter(|_| settings.get("token").is_none() || settings.explicit("token_file"));
    let Some(path) = file else { return Ok(settings.get("token").map(str::to_owned)) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Code::Unauthenticated, format!("the token in {path} cannot be read: {error}"))
            .hint("run as the user who may read it, or set VT_TOKEN")
    })?;
    let text = text.trim();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || text.contains(char::is_whitespace) {
        return Err(Failure::new(Code::Unauthenticated, format!("{path} does not hold a token"))
            .hint("a token begins with vt_at_"));
    }
    Ok(Some(text.to_owned()))
}
