//! TLS by server name, passed through: the keys are the backend's alone.
//!
//! A hello that names a host goes to the route of that host and to no other. One that names none goes to the only tls
//! route if there is only one. An encrypted hello (ECH) is judged by its outer name like any other.

pub mod hello;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::hello::{ClientHello, Progress, Reader, Refusal};
use crate::engine::{Engine, Key, Miss};
use crate::splice;

/// Alert descriptions of RFC 8446, section 6.
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

pub async fn serve(mut client: TcpStream, engine: &Engine) {
    let mut reader = Reader::new();
    let hello = match timeout(engine.limits.hello_timeout, read(&mut client, &mut reader)).await {
        Ok(Some(Ok(hello))) => hello,
        Ok(Some(Err(refusal))) => {
            tracing::debug!(?refusal, "not a usable ClientHello");
            // Whoever does not speak TLS would not understand an alert.
            if refusal != Refusal::NotTls {
                say(&mut client, DECODE_ERROR).await;
            }
            return;
        }
        Ok(None) => return,
        Err(_) => {
            tracing::debug!("no complete ClientHello in time");
            return;
        }
    };
    let name = hello.server_name.as_deref();
    match splice::connect(engine, Key::Tls(name)).await {
        Ok((mut backend, flight)) => {
            if backend.write_all(reader.bytes()).await.is_ok() {
                drop(reader);
                splice::splice(client, backend, &flight, engine).await;
            }
        }
        Err(miss) => {
            tracing::debug!(?name, ?miss, "tls connection closed");
            let alert = match (miss, name) {
                (Miss::NoRoute, Some(_)) => UNRECOGNIZED_NAME,
                (Miss::NoRoute, None) => HANDSHAKE_FAILURE,
                (Miss::NoBackend | Miss::Asleep | Miss::Exhausted, _) => INTERNAL_ERROR,
            };
            say(&mut client, alert).await;
        }
    }
}

/// `None` when the client went away before its hello was complete.
async fn read(client: &mut TcpStream, reader: &mut Reader) -> Option<Result<ClientHello, Refusal>> {
    let mut buffer = [0; 4096];
    loop {
        let count = client.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        match reader.push(&buffer[..count]) {
            Progress::More => {}
            Progress::Hello(hello) => return Some(Ok(hello)),
            Progress::Refused(refusal) => return Some(Err(refusal)),
        }
    }
}

/// A fatal alert. The socket's send buffer is empty, so it is taken at once or not at all.
async fn say(client: &mut TcpStream, description: u8) {
    let _ = client.try_write(&[21, 3, 3, 0, 2, 2, description]);
    let _ = client.shutdown().await;
}
