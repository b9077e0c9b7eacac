//! The members' network, on turmoil's.

use std::io;

use async_trait::async_trait;
use chainfire::member::peer::address::Address;
use chainfire::member::peer::network::{Listener, Network, Pipe};
use turmoil::net::{TcpListener, TcpStream};

pub struct Simulated;

#[async_trait]
impl Network for Simulated {
    async fn connect(&self, to: &Address) -> io::Result<Pipe> {
        Ok(Box::new(TcpStream::connect((to.host.as_str(), to.port)).await?))
    }

    async fn listen(&self, at: &Address) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Listening(TcpListener::bind(("0.0.0.0", at.port)).await?)))
    }
}

struct Listening(TcpListener);

#[async_trait]
impl Listener for Listening {
    async fn accept(&mut self) -> io::Result<(Pipe, String)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Box::new(stream), from.to_string()))
    }
}
