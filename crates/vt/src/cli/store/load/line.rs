//! gRPC on one HTTP/2 connection.

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use prost::Message;
use tokio::net::TcpStream;

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// What may come before it is read: the store is measured, not this program's windows.
const WINDOW_BYTES: u32 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("HTTP/2: {0}")]
    Http(#[from] h2::Error),
    #[error("the answer cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("refused: {0}")]
    Refused(String),
}

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Line {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Line {
    pub async fn open(address: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (sender, connection) = builder.handshake(stream).await?;
        tokio::spawn(async move {
            // Who waits for an answer is told; nobody else has to know.
            let _ = connection.await;
        });
        Ok(Self { sender, authority: address.to_owned() })
    }

    fn request(&self, path: &'static str) -> Result<Request<()>, Error> {
        let uri = Uri::builder().scheme("http").authority(self.authority.as_str()).path_and_query(path).build();
        let mut request = Request::new(());
        *request.uri_mut() = uri.map_err(|error| Error::Refused(error.to_string()))?;
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }

    /// One message there, one back, as bytes.
    pub async fn ask(&self, path: &'static str, message: &impl Message) -> Result<Bytes, Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut body) = sender.send_request(self.request(path)?, false)?;
        body.send_data(frame(message), true)?;
        let answer = answer.await?;
        status(answer.headers())?;
        let mut body = answer.into_body();
        let mut bytes = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            // All of the window was given at the start, and no answer is that large; it is given back all the same.
            let _ = body.flow_control().release_capacity(part.len());
            bytes.extend_from_slice(&part);
        }
        if let Some(trailers) = body.trailers().await? {
            status(&trailers)?;
        }
        if bytes.len() < PREFIX_BYTES {
            return Err(Error::Refused("an empty answer".to_owned()));
        }
        Ok(bytes.freeze().slice(PREFIX_BYTES..))
    }

    pub async fn call<A: Message + Default>(&self, path: &'static str, message: &impl Message) -> Result<A, Error> {
        Ok(A::decode(self.ask(path, message).await?)?)
    }

    /// A stream each way.
    pub async fn stream(&self, path: &'static str, first: &impl Message) -> Result<(Sending, Receiving), Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut body) = sender.send_request(self.request(path)?, false)?;
        body.send_data(frame(first), false)?;
        let answer = answer.await?;
        status(answer.headers())?;
        Ok((Sending(body), Receiving { body: answer.into_body(), left: BytesMut::new() }))
    }
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

fn status(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get("grpc-status") {
        None => Ok(()),
        Some(code) if code == "0" => Ok(()),
        Some(code) => {
            let message = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
            Err(Error::Refused(format!("{} {message}", code.to_str().unwrap_or_default())))
        }
    }
}

pub struct Sending(SendStream<Bytes>);

impl Sending {
    pub fn send(&mut self, message: &impl Message) -> Result<(), Error> {
        Ok(self.0.send_data(frame(message), false)?)
    }
}

pub struct Receiving {
    body: RecvStream,
    left: BytesMut,
}

impl Receiving {
    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(length) = self.left.get(1..PREFIX_BYTES) {
                let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                if self.left.len() >= PREFIX_BYTES + length {
                    let message = self.left.split_to(PREFIX_BYTES + length).freeze();
                    return Ok(Some(message.slice(PREFIX_BYTES..)));
                }
            }
            match self.body.data().await {
                Some(part) => {
                    let part = part?;
                    self.body.flow_control().release_capacity(part.len())?;
                    self.left.extend_from_slice(&part);
                }
                None => return Ok(None),
            }
        }
    }
}
