//! A client of a cluster: its endpoints, of which one is used until it fails, and the token that each call carries.
//!
//! ```text
//!   Client ── connection ──▶ Connection (one endpoint, token) ── kv, watch, lease ... ──▶ typed stub
//!     └── call: as often as it is safe, at one endpoint after the other, within the time for a request
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::options::reason;
use crate::proto::etcdserverpb::auth_client::AuthClient;
use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::proto::etcdserverpb::{AuthenticateRequest, StatusRequest};
use crate::told::{AUTH_NOT_ENABLED, Told};
use crate::{Error, Login, Options, Repeat};

/// Largest answer taken, the largest that etcd's own client takes: etcd does not limit the answer of a range.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// Cheap to clone; all clones share connections and token.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    /// As written in the options, and its channel, which connects when it is used and again when it broke.
    endpoints: Vec<(String, Channel)>,
    /// Which of them is used.
    current: AtomicUsize,
    login: Option<Login>,
    /// `None` as long as the cluster does not ask for one.
    token: RwLock<Option<MetadataValue<Ascii>>>,
    /// Held while a new token is asked for, so that one refused token is one new one.
    signing_in: tokio::sync::Mutex<()>,
    request_time_max: Duration,
}

/// What each call carries: the token, and whether a member without a leader shall refuse instead of waiting for one.
#[derive(Clone, Debug)]
pub struct Stamp {
    token: Option<MetadataValue<Ascii>>,
    leader: bool,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        if self.leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        Ok(request)
    }
}

/// What the stubs speak through.
pub type Stamped = InterceptedService<Channel, Stamp>;

/// One endpoint, with the token as of now.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    stamp: Stamp,
}

impl Connection {
    /// Does not ask that the member has a leader: for what each member can say by itself.
    #[must_use]
    pub fn leaderless(mut self) -> Self {
        self.stamp.leader = false;
        self
    }

    fn stamped(&self) -> Stamped {
        InterceptedService::new(self.channel.clone(), self.stamp.clone())
    }

    pub fn kv(&self) -> KvClient<Stamped> {
        KvClient::new(self.stamped()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn watch(&self) -> WatchClient<Stamped> {
        WatchClient::new(self.stamped()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn lease(&self) -> LeaseClient<Stamped> {
        LeaseClient::new(self.stamped()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn cluster(&self) -> ClusterClient<Stamped> {
        ClusterClient::new(self.stamped())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Stamped> {
        MaintenanceClient::new(self.stamped()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn auth(&self) -> AuthClient<Stamped> {
        AuthClient::new(self.stamped())
    }
}

impl Client {
    /// Answers once one endpoint has, signed in when there is a login.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        let endpoints: Vec<_> =
            options.dialled()?.into_iter().map(|(name, endpoint)| (name, endpoint.connect_lazy())).collect();
        let client = Self {
            shared: Arc::new(Shared {
                endpoints,
                current: AtomicUsize::new(0),
                login: options.login.clone(),
                token: RwLock::new(None),
                signing_in: tokio::sync::Mutex::new(()),
                request_time_max: options.request_time_max,
            }),
        };
        client.find().await?;
        client.sign_in(None).await.map_err(|status| Error::Login {
            user: options.login.as_ref().map(|login| login.user.clone()).unwrap_or_default(),
            reason: status.message().to_owned(),
        })?;
        Ok(client)
    }

    /// Makes the first endpoint that answers the one that is used.
    async fn find(&self) -> Result<(), Error> {
        let mut failed = Error::NoEndpoint;
        for (at, (name, connection)) in self.connections().enumerate() {
            let mut maintenance = connection.maintenance();
            let asked = maintenance.status(StatusRequest {});
            let reason = match tokio::time::timeout(self.shared.request_time_max, asked).await {
                Ok(Err(status)) if matches!(Told::by(&status), Told::Unreachable | Told::Broken) => {
                    // The status repeats its source in a form for programmers.
                    std::error::Error::source(&status).map_or_else(|| status.message().to_owned(), reason)
                }
                // Any word of its own will do.
                Ok(_) => {
                    self.shared.current.store(at, Ordering::Relaxed);
                    return Ok(());
                }
                Err(_) => "it did not answer within the time for a request".to_owned(),
            };
            failed = Error::Unreachable { endpoint: name.to_owned(), reason };
        }
        Err(failed)
    }

    /// The endpoint in use.
    pub fn connection(&self) -> Connection {
        self.connection_to(self.current())
    }

    /// Every endpoint as written in the options, whether it can be reached or not.
    pub fn connections(&self) -> impl Iterator<Item = (&str, Connection)> {
        let endpoints = self.shared.endpoints.iter().enumerate();
        endpoints.map(|(at, (name, _))| (&name[..], self.connection_to(at).leaderless()))
    }

    pub fn kv(&self) -> KvClient<Stamped> {
        self.connection().kv()
    }

    pub fn watch(&self) -> WatchClient<Stamped> {
        self.connection().watch()
    }

    pub fn lease(&self) -> LeaseClient<Stamped> {
        self.connection().lease()
    }

    pub fn cluster(&self) -> ClusterClient<Stamped> {
        self.connection().cluster()
    }

    pub fn maintenance(&self) -> MaintenanceClient<Stamped> {
        self.connection().maintenance()
    }

    pub fn auth(&self) -> AuthClient<Stamped> {
        self.connection().auth()
    }

    pub(crate) fn request_time_max(&self) -> Duration {
        self.shared.request_time_max
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.shared.endpoints.len()
    }

    pub(crate) fn current(&self) -> usize {
        self.shared.current.load(Ordering::Relaxed)
    }

    pub(crate) fn connection_to(&self, at: usize) -> Connection {
        let token = self.shared.token.read().clone();
        Connection { channel: self.shared.endpoints[at].1.clone(), stamp: Stamp { token, leader: true } }
    }

    /// The endpoint failed; the next one is used, unless somebody else has gone on already.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.endpoints();
        let _ = self.shared.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn has_login(&self) -> bool {
        self.shared.login.is_some()
    }

    /// Gets a token in place of the one that was `refused`, unless there is a newer one already.
    pub(crate) async fn sign_in(&self, refused: Option<&Connection>) -> Result<(), Status> {
        let Some(Login { user, password }) = &self.shared.login else { return Ok(()) };
        let _one = self.shared.signing_in.lock().await;
        if refused.is_some_and(|refused| refused.stamp.token != *self.shared.token.read()) {
            return Ok(());
        }
        *self.shared.token.write() = None;
        let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
        let asked = self.attempts(Repeat::Always, false, |connection| {
            let request = request.clone();
            async move { connection.auth().authenticate(request).await }
        });
        let token = match asked.await {
            Ok(answer) => answer.token,
            Err(status) if status.message() == AUTH_NOT_ENABLED => return Ok(()),
            Err(status) => return Err(status),
        };
        let token = token.parse().map_err(|_| Status::internal("the token is not text"))?;
        *self.shared.token.write() = Some(token);
        Ok(())
    }
}
