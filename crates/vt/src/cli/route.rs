use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::noun::{self, DeleteArgs, ListArgs, ShowArgs};
use super::session::Session;
use crate::client::{Target, key};
use crate::failure::{Failure, Outcome};
use crate::output::receipt::Receipt;

/// Routes: what brings traffic to a process
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt route list
  vt route create --host shop.example --process web
  vt route create --mode tcp --listen-port 6379 --process cache --port 6379")]
pub struct RouteArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it
    Show(ShowArgs),
    /// Makes one: http by host name, tls by server name without termination, or tcp by port
    #[command(before_help = "Examples:
  vt route create --host shop.example --process web
  vt route create --mode tls --host db.example --process db --port 5432
  vt route create --mode tcp --listen-port 6379 --process cache --port 6379")]
    Create(CreateArgs),
    /// Asks one to go
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name; else made from the host or the port
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How traffic is told apart
    #[arg(long, value_enum, default_value = "http")]
    mode: Mode,
    /// The whole host name, for http and tls
    #[arg(long, value_name = "HOST", required_unless_present = "listen_port")]
    host: Option<String>,
    /// The port that the ingress listens on, for tcp
    #[arg(long, value_name = "PORT", conflicts_with = "host")]
    listen_port: Option<u16>,
    /// The process whose instances answer; needed where the manifest has several
    #[arg(long, value_name = "NAME")]
    process: Option<String>,
    /// The port that they listen on; else the process's first in the manifest
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Http,
    Tls,
    Tcp,
}

pub async fn run(session: &Session, args: &RouteArgs) -> Outcome {
    match &args.verb {
        Verb::List(args) => noun::run(session, noun::Act::List("route", args)).await,
        Verb::Show(args) => noun::run(session, noun::Act::Show("route", args)).await,
        Verb::Delete(args) => noun::run(session, noun::Act::Delete("route", args)).await,
        Verb::Create(args) => create(session, args).await,
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Outcome {
    if (args.mode == Mode::Tcp) != args.listen_port.is_some() {
        let (message, hint) = match args.mode {
            Mode::Tcp => ("a tcp route is told by its port", "say --listen-port PORT instead of --host"),
            _ => ("a port tells tcp routes apart", "say --mode tcp, or --host HOST"),
        };
        return Err(Failure::usage(message).hint(hint));
    }
    let (process, port) = backend(session, args)?;
    let mode = match args.mode {
        Mode::Http => "http",
        Mode::Tls => "tls",
        Mode::Tcp => "tcp",
    };
    let mut spec = json!({ "mode": mode, "process": process, "port": port });
    if let Some(host) = &args.host {
        spec["host"] = json!(host.to_lowercase());
    }
    if let Some(port) = args.listen_port {
        spec["listen_port"] = json!(port);
    }
    let name = match (&args.name, &args.host, args.listen_port) {
        (Some(name), _, _) => name.clone(),
        (None, Some(host), _) => model::name::nearest(host),
        (None, None, Some(port)) => format!("tcp-{port}"),
        (None, None, None) => return Err(Failure::usage("a name is missing")),
    };
    model::name::check("name", &name)?;
    let api = session.api()?;
    let env = Target::new(&api, &session.settings).scope(model::Level::Env).await?;
    let item = api.create(noun::noun_of("route")?, &env, &name, &spec, &key()).await?;
    let next = vec![format!("vt wait {}", item.row.id), format!("vt route show {name}")];
    Receipt { operation: "created", item: &item, next, extra: Vec::new() }.print(&session.out)?;
    Ok(0)
}

/// The process and its port: as said, or the only ones that the manifest has.
fn backend(session: &Session, args: &CreateArgs) -> Result<(String, u16), Failure> {
    if let (Some(process), Some(port)) = (&args.process, args.port) {
        return Ok((process.clone(), port));
    }
    let ask = |what: &str| Failure::usage(format!("which {what}?")).hint("say --process NAME and --port PORT");
    let manifest = session.settings.manifest_optional()?.ok_or_else(|| ask("process and port"))?;
    let process = match &args.process {
        Some(process) => process.clone(),
        None => {
            let mut with_ports = manifest.processes.iter().filter(|(_, process)| !process.ports.is_empty());
            match (with_ports.next(), with_ports.next()) {
                (Some((name, _)), None) => name.clone(),
                _ => return Err(ask("process")),
            }
        }
    };
    let port = args.port.or_else(|| manifest.processes.get(&process)?.ports.first().map(|port| port.internal));
    Ok((process, port.ok_or_else(|| ask("port"))?))
}
