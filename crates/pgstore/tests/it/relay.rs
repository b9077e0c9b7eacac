//! A wire between a store and the server that can be cut.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Relay {
    port: u16,
    whole: watch::Sender<bool>,
    listening: tokio::task::AbortHandle,
}

impl Relay {
    /// To the server that `url` names, which has to be `localhost`.
    pub async fn to(url: &str) -> Self {
        let (_, after) = url.split_once("@localhost:").unwrap();
        let target: u16 = after.split('/').next().unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (whole, state) = watch::channel(true);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut state = state.clone();
                // Closed at once while the wire is cut.
                if *state.borrow_and_update() {
                    tokio::spawn(carry(client, target, state));
                }
            }
        });
        Self { port, whole, listening: listening.abort_handle() }
    }

    pub fn url(&self, url: &str) -> String {
        let (before, after) = url.split_once("@localhost:").unwrap();
        let (_, rest) = after.split_once('/').unwrap();
        format!("{before}@localhost:{}/{rest}", self.port)
    }

    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn carry(mut client: TcpStream, target: u16, mut state: watch::Receiver<bool>) {
    let mut server = TcpStream::connect(("localhost", target)).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = state.wait_for(|whole| !whole) => {}
    }
}
