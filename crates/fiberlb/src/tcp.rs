//! TCP by port: the connection belongs to whoever has the port.

use tokio::net::TcpStream;

use crate::engine::{Engine, Key};
use crate::splice;

pub async fn serve(client: TcpStream, port: u16, engine: &Engine) {
    match splice::connect(engine, Key::Tcp(port)).await {
        Ok((backend, flight)) => splice::splice(client, backend, &flight, engine).await,
        Err(miss) => tracing::debug!(port, ?miss, "tcp connection closed"),
    }
}
