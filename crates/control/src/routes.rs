//! The one route table. The router, the OpenAPI document and the foreign-tenant test are made from it.

use http::Method;
use model::Level;
use reconcile::Registry;
use reconcile::kind::{Contract, StreamContract};

/// Rows or events of one page, unless asked otherwise and at most.
pub const PAGE_DEFAULT: u64 = 50;
pub const PAGE_MAX: u64 = 200;
/// The longest wait of one request.
pub const WAIT_SECONDS_MAX: u64 = 600;
pub const WAIT_SECONDS_DEFAULT: u64 = 60;

/// What stands between a caller and an answer. Checked before any handler runs; a handler is given what was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Anyone, without a token.
    Open,
    /// Any token. The answer speaks of the token and of the program, of no row.
    Token,
    /// Tokens of the whole cloud.
    Cloud,
    /// The row that `{id}` names must be of the route's kind and in the token's scope.
    Row,
    /// The scope that the row `{id}` opens must be in the token's scope.
    InnerScope,
    /// The query's `scope` must be in the token's scope, or above it: then the answer is about the token's own part.
    ScopeQuery,
    /// The body's `scope` must be in the token's scope.
    ScopeBody,
}

/// Which handler answers.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    List,
    Create,
    Get,
    Set,
    Delete,
    RowEvents,
    Why,
    Wait,
    WatchRows,
    Stream(StreamContract),
    Whoami,
    Events,
    WatchEvents,
    Info,
    Config,
    Kinds,
    Replay,
    PutBlob,
    HasBlob,
    OpenApi,
    Health,
    Ready,
    Version,
    Metrics,
}

impl Action {
    /// True for answers that may take long by their nature; they count against another limit than short requests.
    pub fn is_long(&self) -> bool {
        matches!(self, Self::Wait | Self::WatchRows | Self::WatchEvents | Self::Stream(_) | Self::PutBlob)
    }
}

/// What a query parameter may say.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Text,
    Flag,
    Number { min: u64, max: u64 },
    Id,
    Scope,
    OneOf(&'static [&'static str]),
}

/// A query parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    pub form: Form,
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    None,
    /// `{scope, name, spec, owner?}`
    New,
    /// `{spec}`
    Spec,
    /// Raw bytes, streamed.
    Blob,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    pub method: Method,
    /// As axum and OpenAPI write it: `/v1/things/{id}`.
    pub path: String,
    /// The kind whose rows it is about; none for answers about the cloud itself.
    pub kind: Option<&'static str>,
    pub guard: Guard,
    /// Needs a token that may write; takes an `Idempotency-Key`.
    pub mutating: bool,
    pub action: Action,
    pub about: String,
    pub parameters: Vec<Parameter>,
    pub payload: Payload,
    /// The status of success.
    pub success: u16,
}

const LIMIT: Parameter =
    Parameter { name: "limit", about: "At most so many; 50 without.", form: Form::Number { min: 1, max: PAGE_MAX } };
const SCOPE: Parameter = Parameter {
    name: "scope",
    about: "Ids of org, project, app and env, joined by `/`: what lives there and below. Empty: all that the token sees.",
    form: Form::Scope,
};

const fn parameter(name: &'static str, about: &'static str, form: Form) -> Parameter {
    Parameter { name, about, form }
}

const fn number(name: &'static str, about: &'static str, min: u64, max: u64) -> Parameter {
    Parameter { name, about, form: Form::Number { min, max } }
}

impl Route {
    fn new(method: Method, path: impl Into<String>, guard: Guard, action: Action, about: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            kind: None,
            guard,
            mutating: false,
            action,
            about: about.into(),
            parameters: Vec::new(),
            payload: Payload::None,
            success: 200,
        }
    }

    fn get(path: impl Into<String>, guard: Guard, action: Action, about: impl Into<String>) -> Self {
        Self::new(Method::GET, path, guard, action, about)
    }

    fn with(mut self, parameters: &[Parameter]) -> Self {
        self.parameters = parameters.to_vec();
        self
    }

    fn of(mut self, contract: &Contract) -> Self {
        self.kind = Some(contract.name);
        self
    }

    fn changing(mut self, payload: Payload, success: u16) -> Self {
        (self.mutating, self.payload, self.success) = (true, payload, success);
        self
    }
}

/// All routes of a cloud with these kinds, in order of path.
///
/// # Panics
/// When two kinds, or a kind and the cloud itself, want the same route.
pub fn routes(registry: &Registry) -> Vec<Route> {
    let mut routes = global(registry);
    for kind in registry.iter() {
        routes.extend(of_kind(kind.contract()));
    }
    routes.sort_by(|a, b| (&a.path, a.method.as_str()).cmp(&(&b.path, b.method.as_str())));
    for pair in routes.windows(2) {
        let clash = pair[0].path == pair[1].path && pair[0].method == pair[1].method;
        assert!(!clash, "two routes are {} {}", pair[0].method, pair[0].path);
    }
    routes
}

fn of_kind(contract: &Contract) -> Vec<Route> {
    let Contract { name, plural, .. } = contract;
    let all = format!("/v1/{plural}");
    let one = format!("{all}/{{id}}");
    let mut routes = vec![
        Route::get(&all, Guard::ScopeQuery, Action::List, format!("Lists rows of kind {name}, in order of id.")).with(&[
            SCOPE,
            parameter("exact", "Only rows at exactly this scope.", Form::Flag),
            parameter("name", "Only rows of this name.", Form::Text),
            parameter("owner", "Only rows that this row's plan made.", Form::Id),
            parameter("phase", "Only rows in this phase.", Form::Text),
            LIMIT,
            parameter("cursor", "`next` of the page before.", Form::Id),
        ]),
        Route::get(&one, Guard::Row, Action::Get, format!("One row of kind {name}.")),
        Route::get(format!("{one}/events"), Guard::Row, Action::RowEvents, "The row's latest events, oldest first.")
            .with(&[LIMIT]),
        Route::get(
            format!("{one}/why"),
            Guard::Row,
            Action::Why,
            "Why the row is in the state it is in: the chain of events behind it, and what blocks it.",
        ),
        Route::get(
            format!("{one}/wait"),
            Guard::Row,
            Action::Wait,
            "Waits until the row is as wished, has failed, or is gone; or until the time is up.",
        )
        .with(&[
            number("generation", "At this generation or later; the present one without.", 1, u64::MAX),
            parameter("for", "What to wait for; `settled` without.", Form::OneOf(&["settled", "gone"])),
            number("timeout_seconds", "At most so long; 60 without.", 0, WAIT_SECONDS_MAX),
        ]),
        Route::get(
            format!("{all}/watch"),
            Guard::ScopeQuery,
            Action::WatchRows,
            "Server-sent events: `put` with a row, `delete` with `{id}`. Without `from` the present rows come first, then \
             `sync`. The id of an event is the revision up to which everything was sent; `Last-Event-ID` goes on after it.",
        )
        .with(&[SCOPE, number("from", "The first revision to send again.", 1, u64::MAX)]),
    ];
    if contract.create {
        let about = format!("Creates a row of kind {name}.");
        routes
            .push(Route::new(Method::POST, &all, Guard::ScopeBody, Action::Create, about).changing(Payload::New, 201));
    }
    if contract.set {
        let about = "Replaces the row's wish. `If-Match` with a version refuses when someone else changed it.";
        routes.push(Route::new(Method::PUT, &one, Guard::Row, Action::Set, about).changing(Payload::Spec, 200));
    }
    if contract.delete {
        let about = "Asks the row to go. It is gone once nothing is left to remove; wait for `gone`.";
        routes.push(Route::new(Method::DELETE, &one, Guard::Row, Action::Delete, about).changing(Payload::None, 202));
    }
    for stream in contract.streams {
        let path = format!("{one}/{}", stream.name);
        let mut route = Route::get(path, Guard::Row, Action::Stream(*stream), stream.about);
        let form = |&(name, about): &(&'static str, &'static str)| parameter(name, about, Form::Text);
        route.parameters = stream.parameters.iter().map(form).collect();
        // Who may only read may not act inside a row either.
        route.mutating = stream.duplex;
        route.success = if stream.duplex { 101 } else { 200 };
        routes.push(route);
    }
    routes.into_iter().map(|route| route.of(contract)).collect()
}

fn global(registry: &Registry) -> Vec<Route> {
    let from = number("from", "The first sequence to send.", 0, u64::MAX);
    let mut routes = vec![
        Route::get("/openapi.json", Guard::Open, Action::OpenApi, "This document."),
        Route::get("/health", Guard::Open, Action::Health, "The process is up."),
        Route::get("/ready", Guard::Open, Action::Ready, "The store answers."),
        Route::get("/version", Guard::Open, Action::Version, "Which program this is."),
        Route::get("/metrics", Guard::Open, Action::Metrics, "Counters in Prometheus' text format."),
        Route::get("/v1/whoami", Guard::Token, Action::Whoami, "Whose token this is, and what it may touch."),
        Route::get("/v1/info", Guard::Token, Action::Info, "Addresses and versions of this cloud."),
        Route::get("/v1/config", Guard::Cloud, Action::Config, "Every setting, its value and where it comes from."),
        Route::get("/v1/kinds", Guard::Token, Action::Kinds, "What kinds of rows there are."),
        Route::get("/v1/events", Guard::ScopeQuery, Action::Events, "Events, in order of sequence; whole commands.")
            .with(&[SCOPE, from, LIMIT, number("newest", "The newest so many instead.", 1, PAGE_MAX)]),
        Route::get(
            "/v1/events/watch",
            Guard::ScopeQuery,
            Action::WatchEvents,
            "Server-sent events: each event of the log, from `from` on, or from now on without. The id of one is the \
             sequence up to which everything was sent; `Last-Event-ID` goes on after it.",
        )
        .with(&[SCOPE, from]),
        Route::new(
            Method::POST,
            "/v1/admin/replay",
            Guard::Cloud,
            Action::Replay,
            "Folds the whole log again and compares it with the rows. Changes nothing.",
        ),
    ];
    // Blobs belong to what opens a project, whatever that kind is called here.
    if let Some(kind) = registry.opening(Level::Project) {
        let contract = kind.contract();
        let path = format!("/v1/{}/{{id}}/blobs/{{digest}}", contract.plural);
        let put =
            "Uploads a blob; `digest` is `sha256:` and 64 hexadecimal digits, and is verified. 200 when it was there.";
        let has = "Whether the blob was uploaded.";
        routes.push(
            Route::new(Method::PUT, &path, Guard::InnerScope, Action::PutBlob, put)
                .changing(Payload::Blob, 201)
                .of(contract),
        );
        routes.push(Route::new(Method::HEAD, &path, Guard::InnerScope, Action::HasBlob, has).of(contract));
    }
    routes
}
