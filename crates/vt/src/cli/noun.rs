//! What every noun has: list, show, create, set, delete.

use std::io::Read as _;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use model::{Code, Level};
use serde_json::{Value, json};

use super::complete;
use super::confirm;
use super::session::Session;
use crate::client::nouns::{self, Noun};
use crate::client::{Api, Item, Target, key};
use crate::failure::{Failure, Outcome};
use crate::output::receipt::Receipt;
use crate::output::yaml;

/// The largest spec that is sent: the API's own limit.
const SPEC_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only rows in this phase
    #[arg(long, value_name = "PHASE")]
    pub phase: Option<String>,
    /// Only rows that this row made
    #[arg(long, value_name = "ID")]
    pub owner: Option<String>,
    /// Everything that the token sees, wherever it lives
    #[arg(long)]
    pub all: bool,
    /// At most this many, 1 to 200; without it, all
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: Option<u16>,
    /// Go on where an earlier answer's `next` says
    #[arg(long, value_name = "ID")]
    pub cursor: Option<String>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name or id
    #[arg(value_name = "NAME|ID", add = ArgValueCompleter::new(complete::rows))]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name: 1 to 63 of a-z, 0-9 and `-`
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// The spec as JSON, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub spec: String,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME|ID", add = ArgValueCompleter::new(complete::rows))]
    pub name: String,
    /// The whole new spec as JSON, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    pub spec: String,
    /// Refuse when the row is at another version
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<u64>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Name or id
    #[arg(value_name = "NAME|ID", add = ArgValueCompleter::new(complete::rows))]
    pub name: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Come back when it is gone
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Subcommand)]
pub enum FullVerb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it
    Show(ShowArgs),
    /// Makes one
    Create(CreateArgs),
    /// Changes one's spec
    Set(SetArgs),
    /// Asks one to go, with what lives in it
    Delete(DeleteArgs),
}

#[derive(Debug, Subcommand)]
pub enum MadeVerb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it
    Show(ShowArgs),
    /// Makes one
    Create(CreateArgs),
    /// Asks one to go
    Delete(DeleteArgs),
}

#[derive(Debug, Subcommand)]
pub enum HeldVerb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it
    Show(ShowArgs),
    /// Asks one to go
    Delete(DeleteArgs),
}

#[derive(Debug, Subcommand)]
pub enum ReadVerb {
    /// Lists them
    List(ListArgs),
    /// Shows one with everything that is known of it
    Show(ShowArgs),
}

/// What is asked of which noun.
#[derive(Debug)]
pub enum Act<'a> {
    List(&'static str, &'a ListArgs),
    Show(&'static str, &'a ShowArgs),
    Create(&'static str, &'a CreateArgs),
    Set(&'static str, &'a SetArgs),
    Delete(&'static str, &'a DeleteArgs),
}

impl FullVerb {
    pub const fn act(&self, noun: &'static str) -> Act<'_> {
        match self {
            FullVerb::List(args) => Act::List(noun, args),
            FullVerb::Show(args) => Act::Show(noun, args),
            FullVerb::Create(args) => Act::Create(noun, args),
            FullVerb::Set(args) => Act::Set(noun, args),
            FullVerb::Delete(args) => Act::Delete(noun, args),
        }
    }
}

impl MadeVerb {
    pub const fn act(&self, noun: &'static str) -> Act<'_> {
        match self {
            MadeVerb::List(args) => Act::List(noun, args),
            MadeVerb::Show(args) => Act::Show(noun, args),
            MadeVerb::Create(args) => Act::Create(noun, args),
            MadeVerb::Delete(args) => Act::Delete(noun, args),
        }
    }
}

impl HeldVerb {
    pub const fn act(&self, noun: &'static str) -> Act<'_> {
        match self {
            HeldVerb::List(args) => Act::List(noun, args),
            HeldVerb::Show(args) => Act::Show(noun, args),
            HeldVerb::Delete(args) => Act::Delete(noun, args),
        }
    }
}

impl ReadVerb {
    pub const fn act(&self, noun: &'static str) -> Act<'_> {
        match self {
            ReadVerb::List(args) => Act::List(noun, args),
            ReadVerb::Show(args) => Act::Show(noun, args),
        }
    }
}

/// Declares a noun's arguments over one of the verb sets.
macro_rules! noun {
    ($args:ident, $verb:ident, $name:literal, $about:literal, $help:literal) => {
        #[doc = $about]
        #[derive(Debug, Args)]
        #[command(before_help = $help)]
        pub struct $args {
            #[command(subcommand)]
            verb: $verb,
        }

        impl $args {
            pub const fn act(&self) -> Act<'_> {
                self.verb.act($name)
            }
        }
    };
}

noun!(
    OrgArgs,
    FullVerb,
    "org",
    "Orgs: who the projects belong to",
    "Examples:
  vt org list
  vt org create acme
  vt org delete acme"
);
noun!(
    ProjectArgs,
    FullVerb,
    "project",
    "Projects: the border for rights, networks and quotas",
    "Examples:
  vt project list
  vt project create team
  vt project show team --json"
);
noun!(
    AppArgs,
    FullVerb,
    "app",
    "Apps: what releases belong to",
    "Examples:
  vt app list
  vt app create shop
  vt app show shop --format yaml"
);
noun!(
    EnvArgs,
    FullVerb,
    "env",
    "Envs: where a release of an app runs",
    "Examples:
  vt env list
  vt env create staging
  vt env show prod --json"
);
noun!(
    VmArgs,
    MadeVerb,
    "vm",
    "Vms: the instances of an app",
    "Examples:
  vt vm list
  vt vm show web-1
  vt vm delete web-1        its deploy makes another"
);
noun!(
    SecretArgs,
    HeldVerb,
    "secret",
    "Secret bundles: which keys an env has, never their values",
    "Examples:
  vt secret list
  vt secret show env
  vt secrets set API_KEY=-  sets one from stdin"
);
noun!(
    KeyspaceArgs,
    FullVerb,
    "keyspace",
    "Key spaces: a part of the store of a project's own, for any etcd client",
    "Examples:
  vt keyspace create config --spec '{\"keys\": 1000, \"bytes\": 1048576}'
  vt keyspace list
  vt keyspace show config --json"
);
noun!(
    NodeArgs,
    ReadVerb,
    "node",
    "Nodes: the machines that run instances",
    "Examples:
  vt node list
  vt node show n1           its engine, and why it is that one
  vt node list --json"
);

pub async fn run(session: &Session, act: Act<'_>) -> Outcome {
    let api = session.api()?;
    match act {
        Act::List(noun, args) => super::list::run(session, &api, noun_of(noun)?, args).await,
        Act::Show(noun, args) => show(session, &api, noun_of(noun)?, &args.name).await,
        Act::Create(noun, args) => create(session, &api, noun_of(noun)?, args).await,
        Act::Set(noun, args) => set(session, &api, noun_of(noun)?, args).await,
        Act::Delete(noun, args) => delete(session, &api, noun_of(noun)?, args).await,
    }
}

pub fn noun_of(name: &str) -> Result<Noun, Failure> {
    nouns::find(name).ok_or_else(|| Failure::new(Code::Internal, format!("there is no kind `{name}`")))
}

async fn show(session: &Session, api: &Api, noun: Noun, name: &str) -> Outcome {
    let item = Target::new(api, &session.settings).find_of(noun, name).await?;
    session.out.value(&item.raw, || yaml::text(&item.raw))?;
    Ok(0)
}

/// JSON from an argument, a file or stdin.
pub fn spec(text: &str) -> Result<Value, Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::usage(format!("{what} cannot be read: {error}"));
    let text = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| failed(path, error))?,
        None if text == "-" => {
            let mut read = String::new();
            std::io::stdin().take(SPEC_BYTES_MAX).read_to_string(&mut read).map_err(|error| failed("stdin", error))?;
            read
        }
        None => text.to_owned(),
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("the spec is not JSON: {error}")).hint("write --spec '{\"key\": \"value\"}'")
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Failure::usage("the spec must be a JSON object").hint("write --spec '{}'"))
    }
}

async fn create(session: &Session, api: &Api, noun: Noun, args: &CreateArgs) -> Outcome {
    let name = args.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        model::name::check("name", name)?;
    } else if !matches!(noun.name, "vm" | "release" | "deploy") {
        return Err(Failure::usage("a name is missing").hint(format!("vt {} create NAME", noun.name)));
    }
    let spec = spec(&args.spec)?;
    let scope = Target::new(api, &session.settings).scope(noun.level).await?;
    let item = api.create(noun, &scope, name, &spec, &key()).await?;
    let next = vec![format!("vt wait {}", item.row.id), format!("vt {} show {}", noun.name, item.row.name)];
    Receipt { operation: "created", item: &item, next, extra: Vec::new() }.print(&session.out)?;
    Ok(0)
}

async fn set(session: &Session, api: &Api, noun: Noun, args: &SetArgs) -> Outcome {
    let spec = spec(&args.spec)?;
    let before = Target::new(api, &session.settings).find_of(noun, &args.name).await?;
    let item = api.set(noun, before.row.id.as_str(), &spec, args.if_version.unwrap_or(before.row.version)).await?;
    let next = vec![format!("vt wait {}", item.row.id), format!("vt {} show {}", noun.name, item.row.name)];
    Receipt { operation: "changed", item: &item, next, extra: Vec::new() }.print(&session.out)?;
    Ok(0)
}

async fn delete(session: &Session, api: &Api, noun: Noun, args: &DeleteArgs) -> Outcome {
    let item = Target::new(api, &session.settings).find_of(noun, &args.name).await?;
    // What holds other things takes them along, so someone has to mean it.
    if matches!(noun.level, Level::Cloud | Level::Org) || matches!(noun.name, "app" | "env") {
        let question = format!("{} {} goes, with everything in it.", noun.name, item.row.name);
        confirm::typed(session, &question, &item.row.name, args.yes)?;
    }
    remove(session, api, noun, &item, args.wait).await
}

/// Asks a row to go, and waits for it where that is wished.
pub async fn remove(session: &Session, api: &Api, noun: Noun, item: &Item, wait: bool) -> Outcome {
    let asked = api.delete(noun, item.row.id.as_str(), Some(item.row.version)).await?;
    let next = vec![format!("vt wait {} --for gone", asked.row.id), format!("vt why {}", asked.row.id)];
    if wait {
        super::wait::until(session, api, noun, &asked, super::wait::For::Gone, super::wait::DEFAULT_SECONDS).await?;
        let gone = json!({ "operation": "removed", "id": asked.row.id, "kind": asked.row.kind, "name": asked.row.name, "next": [] });
        session.out.value(&gone, || format!("removed  {} {}\n", asked.row.kind, asked.row.name))?;
        return Ok(0);
    }
    Receipt { operation: "removal asked", item: &asked, next, extra: Vec::new() }.print(&session.out)?;
    Ok(0)
}
