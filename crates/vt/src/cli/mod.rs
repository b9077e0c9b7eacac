//! The command line: one command, one file; a command's doc comment is its help.
//!
//! ```text
//! arguments -> Cli -> Session (settings, output) -> the command's `run` -> exit code
//! ```

mod admin;
mod auth;
pub mod complete;
mod completion;
mod config;
mod confirm;
mod deploy;
mod destroy;
mod doctor;
mod events;
mod examples;
mod exec;
mod explain;
mod globals;
mod kv;
mod launch;
mod list;
mod logs;
mod machine;
mod manifest;
mod noun;
mod open;
mod plan;
mod release;
mod releases;
mod rest;
mod rollback;
mod rollout;
mod route;
mod scale;
mod secrets;
mod session;
mod stand_in;
mod status;
pub mod store;
mod token;
pub mod up;
mod upload;
mod usage;
mod version;
mod wait;
mod why;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::Settings;
use crate::failure::{EXIT_EXEC, Outcome};
use crate::output::Out;
use globals::Globals;
use session::Session;

/// A cloud of microVMs in one program: starts it, and drives it.
///
/// Alone, `vt` looks at this machine, says what it would run with, and names the next command.
#[derive(Debug, Parser)]
#[command(
    name = "vt",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    before_help = "Examples:
  vt                        what this machine is fit for, and the next command
  vt up                     starts the whole cloud here
  vt deploy                 brings the app in this folder up and prints its URL"
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Doctor(doctor::DoctorArgs),
    Launch(launch::LaunchArgs),
    Deploy(deploy::DeployArgs),
    Plan(plan::PlanArgs),
    Status(status::StatusArgs),
    Open(open::OpenArgs),
    Logs(logs::LogsArgs),
    Exec(exec::ExecArgs),
    Scale(scale::ScaleArgs),
    Sleep(rest::SleepArgs),
    Wake(rest::WakeArgs),
    Releases(releases::ReleasesArgs),
    Rollback(rollback::RollbackArgs),
    Secrets(secrets::SecretsArgs),
    Events(events::EventsArgs),
    Why(why::WhyArgs),
    Wait(wait::WaitArgs),
    Destroy(destroy::DestroyArgs),
    Org(noun::OrgArgs),
    Project(noun::ProjectArgs),
    App(noun::AppArgs),
    Env(noun::EnvArgs),
    Vm(noun::VmArgs),
    Release(release::ReleaseArgs),
    Route(route::RouteArgs),
    Secret(noun::SecretArgs),
    Keyspace(noun::KeyspaceArgs),
    Token(token::TokenArgs),
    Node(noun::NodeArgs),
    Store(store::StoreArgs),
    Kv(kv::KvArgs),
    Auth(auth::AuthArgs),
    Config(config::ConfigArgs),
    Manifest(manifest::ManifestArgs),
    Explain(explain::ExplainArgs),
    Admin(admin::AdminArgs),
    Completion(completion::CompletionArgs),
    Version(version::VersionArgs),
}

/// The whole tree of commands.
pub fn tree() -> clap::Command {
    examples::add(Cli::command())
}

/// Runs one command line to its exit code.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let arguments = stand_in::translate(arguments);
    let parsed = tree().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage::answer(&error, &arguments),
    };
    let settings = Settings::read(&cli.globals.flags(), &|name| std::env::var(name).ok());
    let now_ms = world::Clock::real().now_ms();
    let (format, refused) = match usage::format(&settings) {
        Ok(format) => (format, None),
        Err(failure) => (crate::output::Format::Table, Some(failure)),
    };
    let out = Out::new(format, !settings.flag("color"), now_ms);
    let session = Session { settings, out };
    let exec = matches!(cli.command, Some(Command::Exec(_)));
    let outcome = match refused {
        Some(failure) => Err(failure),
        None => blocking(cli.command.as_ref(), dispatch(&session, cli.command.as_ref())),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            // An empty one means that whoever read the output has gone away.
            if !failure.error.message.is_empty() {
                session.out.failure(&failure);
            }
            if exec { EXIT_EXEC } else { failure.exit_code() }
        }
    }
}

fn blocking(command: Option<&Command>, work: impl Future<Output = Outcome>) -> Outcome {
    let mut builder = match command {
        Some(Command::Up(_)) => tokio::runtime::Builder::new_multi_thread(),
        Some(Command::Store(args)) if args.serves() => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|error| {
        crate::failure::Failure::new(model::Code::Failed, format!("the program cannot start its tasks: {error}"))
    })?;
    let outcome = runtime.block_on(work);
    // A read of the terminal that nobody ends would be waited for.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(session: &Session, command: Option<&Command>) -> Outcome {
    let Some(command) = command else { return machine::run(session).await };
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Doctor(args) => doctor::run(session, args).await,
        Command::Launch(args) => launch::run(session, args).await,
        Command::Deploy(args) => deploy::run(session, args).await,
        Command::Plan(args) => plan::run(session, args).await,
        Command::Status(args) => status::run(session, args).await,
        Command::Open(args) => open::run(session, args).await,
        Command::Logs(args) => logs::run(session, args).await,
        Command::Exec(args) => exec::run(session, args).await,
        Command::Scale(args) => scale::run(session, args).await,
        Command::Sleep(args) => rest::sleep(session, args).await,
        Command::Wake(args) => rest::wake(session, args).await,
        Command::Releases(args) => releases::run(session, args).await,
        Command::Rollback(args) => rollback::run(session, args).await,
        Command::Secrets(args) => secrets::run(session, args).await,
        Command::Events(args) => events::run(session, args).await,
        Command::Why(args) => why::run(session, args).await,
        Command::Wait(args) => wait::run(session, args).await,
        Command::Destroy(args) => destroy::run(session, args).await,
        Command::Org(args) => noun::run(session, args.act()).await,
        Command::Project(args) => noun::run(session, args.act()).await,
        Command::App(args) => noun::run(session, args.act()).await,
        Command::Env(args) => noun::run(session, args.act()).await,
        Command::Vm(args) => noun::run(session, args.act()).await,
        Command::Release(args) => release::run(session, args).await,
        Command::Route(args) => route::run(session, args).await,
        Command::Secret(args) => noun::run(session, args.act()).await,
        Command::Keyspace(args) => noun::run(session, args.act()).await,
        Command::Token(args) => token::run(session, args).await,
        Command::Node(args) => noun::run(session, args.act()).await,
        Command::Store(args) => store::run(session, args).await,
        Command::Kv(args) => kv::run(session, args).await,
        Command::Auth(args) => auth::run(session, args).await,
        Command::Config(args) => config::run(session, args).await,
        Command::Manifest(args) => manifest::run(session, args),
        Command::Explain(args) => explain::run(session, args),
        Command::Admin(args) => admin::run(session, args).await,
        Command::Completion(args) => completion::run(session, args),
        Command::Version(args) => version::run(session, args).await,
    }
}

#[cfg(test)]
mod tests;
