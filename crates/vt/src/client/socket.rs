//! A WebSocket to the API, over the same TLS as everything else.

use std::time::Duration;

use model::{Code, Error};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Api;
use crate::failure::Failure;

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Both directions of a connected socket.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;
/// What is sent and received.
pub type Frame = Message;

impl Api {
    /// Connects and upgrades. A refusal is told as the API told it.
    pub async fn socket(&self, path: &str) -> Result<Socket, Failure> {
        let url = self.url(path, &[]);
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let away = |why: String| {
            Failure::new(Code::Unavailable, format!("the cloud at {} does not answer", self.address())).why(why)
        };
        let connect = async {
            let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| away(error.to_string()))?;
            // Keys are typed one by one; each has to leave at once.
            let _ = tcp.set_nodelay(true);
            let name = ServerName::try_from(host.clone()).map_err(|error| away(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
            let tls = connector.connect(name, tcp).await.map_err(|error| away(error.to_string()))?;
            let mut address = url.clone();
            // Only http, https, ws and wss may be exchanged for each other, which is what happens here.
            let _ = address.set_scheme("wss");
            let mut request =
                address.as_str().into_client_request().map_err(|error| Error::internal(error.to_string()))?;
            if let Some(token) = &self.token {
                let value = format!("Bearer {token}")
                    .parse()
                    .map_err(|_| Error::new(Code::Unauthenticated, "the token cannot be sent"))?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            match tokio_tungstenite::client_async(request, tls).await {
                Ok((socket, _)) => Ok(socket),
                Err(tungstenite::Error::Http(response)) => {
                    let problem = response.body().as_deref().and_then(|body| serde_json::from_slice(body).ok());
                    Err(problem.as_ref().and_then(Failure::from_problem).unwrap_or_else(|| {
                        let code = Code::ALL.into_iter().find(|code| code.http_status() == response.status().as_u16());
                        Failure::new(
                            code.unwrap_or(Code::Internal),
                            format!("the cloud answered {}", response.status()),
                        )
                    }))
                }
                Err(error) => Err(away(error.to_string())),
            }
        };
        tokio::time::timeout(CONNECT_DEADLINE, connect)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Code::DeadlineExceeded, "the connection did not come about in time")))
    }
}
