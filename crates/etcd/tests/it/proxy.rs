//! A connection that can be cut or stalled.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    Open,
    /// What stands breaks, what comes breaks.
    Cut,
    /// What stands falls silent until the next change; what comes passes.
    Silent,
    /// What stands carries requests and no answers, until the next change.
    Deaf,
}

/// Longer than any test waits.
const SILENCE_MAX: Duration = Duration::from_mins(5);

pub struct Proxy {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Proxy {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, state) = watch::channel(Line::Open);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, server, state.clone()));
            }
        });
        Self { address, line }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(mut near: TcpStream, server: SocketAddr, mut line: watch::Receiver<Line>) {
    if *line.borrow_and_update() == Line::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        _ = line.changed() => {}
    }
    let now = *line.borrow_and_update();
    match now {
        Line::Open | Line::Cut => {}
        Line::Silent => {
            let _ = tokio::time::timeout(SILENCE_MAX, line.changed()).await;
        }
        Line::Deaf => {
            let (mut asking, _held) = near.split();
            let (_held, mut asked) = far.split();
            tokio::select! {
                _ = tokio::io::copy(&mut asking, &mut asked) => {}
                _ = line.changed() => {}
            }
        }
    }
}
