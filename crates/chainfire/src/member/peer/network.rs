//! How bytes get to another member: over TCP, or over whatever a test puts in its place.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::address::Address;

/// A stream of bytes to and from one other member.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

pub type Pipe = Box<dyn Stream>;

/// TLS is put on top of the streams afterwards where the address asks for it.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The caller limits the time.
    async fn connect(&self, to: &Address) -> io::Result<Pipe>;

    async fn listen(&self, at: &Address) -> io::Result<Box<dyn Listener>>;
}

#[async_trait]
pub trait Listener: Send + 'static {
    /// The stream, and where it comes from for people to read. Cancel safe.
    async fn accept(&mut self) -> io::Result<(Pipe, String)>;
}

/// The machine's own network.
pub struct Tcp;

impl Tcp {
    pub fn network() -> Arc<dyn Network> {
        Arc::new(Self)
    }
}

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, to: &Address) -> io::Result<Pipe> {
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
        // Frames are collected before they are written; waiting for more would only delay them.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, at: &Address) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind((at.host.as_str(), at.port)).await?))
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(Pipe, String)> {
        let (stream, from) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), from.to_string()))
    }
}
