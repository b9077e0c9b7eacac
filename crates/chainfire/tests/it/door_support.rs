//! A door on a free port, and how to reach it.

use std::sync::Arc;

use chainfire::door::{Handle, Options, solo};
use store::memory::Memory;
use tonic::transport::{Channel, Endpoint};

/// Open until it is dropped.
pub struct Door {
    handle: Handle,
}

impl Door {
    pub fn address(&self) -> String {
        self.handle.addresses()[0].to_string()
    }
}

pub async fn serve_for_test() -> Door {
    serve_with(Options::new(["http://127.0.0.1:0".into()])).await
}

pub async fn serve_with(options: Options) -> Door {
    Door { handle: solo::serve(options, Arc::new(Memory::new())).await.unwrap() }
}

pub async fn channel(door: &Door) -> Channel {
    Endpoint::from_shared(format!("http://{}", door.address())).unwrap().connect().await.unwrap()
}
