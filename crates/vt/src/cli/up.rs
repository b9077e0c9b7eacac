use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Outcome;

/// Starts the whole cloud on this machine, in the foreground
///
/// The first start makes its authority, its certificates, an admin token and a context for this command line. A later
/// start goes on with what ran. Ctrl-C stops the control plane; instances keep running and are adopted again.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt up
  vt up --data-dir ./cloud --http-port 8088
  vt up --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379")]
pub struct UpArgs {
    /// Where everything is kept that it writes
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the API listens
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Port of the HTTP ingress
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Where the cloud keeps its truth: embedded, etcd://HOST:PORT,... or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Settings of the cloud, as TOML; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub async fn run(args: &UpArgs) -> Outcome {
    let args = UpArgs {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        http_port: args.http_port,
        store: args.store.clone(),
        config: args.config.clone(),
    };
    crate::cloud::up(args).await?;
    Ok(0)
}
