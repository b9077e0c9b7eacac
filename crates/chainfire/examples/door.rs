//! A door before a store of one member: `cargo run -p chainfire --example door -- [--memory | FOLDER] [URL]`.

use std::sync::Arc;

use chainfire::door::{Options, solo};
use chainfire::{Embedded, Options as EngineOptions};
use store::Store;
use store::memory::Memory;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().unwrap_or_else(|| "--memory".into());
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:2379".into());
    let store: Arc<dyn Store> = match &place[..] {
        "--memory" => Arc::new(Memory::new()),
        folder => Arc::new(Embedded::open(folder, EngineOptions::default()).await?),
    };
    let door = solo::serve(Options::new([url]), store).await?;
    println!("{:?}", door.addresses());
    tokio::signal::ctrl_c().await?;
    door.close().await;
    Ok(())
}
