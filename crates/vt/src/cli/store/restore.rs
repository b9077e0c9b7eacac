use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chainfire::member::OpenError;
use chainfire::member::restore::restore;
use clap::Args;
use model::Code;
use serde_json::json;

use super::serve::{self, Given, Settings};
use super::snapshot;
use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A file that `vt store snapshot` or `etcdctl snapshot save` saved from a ChainFire
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder of the new member; it must be empty or missing
    #[arg(long, value_name = "DIR")]
    data_dir: String,
    /// The new member's name
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// All members of the new cluster; this one alone when left out
    #[arg(long, value_name = "NAME=URL,...")]
    initial_cluster: Option<String>,
    /// Where other members reach this one; else as --initial-cluster says
    #[arg(long, value_name = "URLS")]
    initial_advertise_peer_urls: Option<String>,
    /// Tells this cluster apart from the old one
    #[arg(long, value_name = "TEXT")]
    initial_cluster_token: Option<String>,
}

/// As `vt store serve` would take them.
fn settings(args: &RestoreArgs) -> Result<Settings, Failure> {
    let mut given = Given::default();
    let mut give = |flag: &'static str, value: Option<String>| {
        if let Some(value) = value {
            given.0.insert(flag, value);
        }
    };
    give("name", Some(args.name.clone()));
    give("data-dir", Some(args.data_dir.clone()));
    give("initial-cluster", args.initial_cluster.clone());
    give("initial-cluster-token", args.initial_cluster_token.clone());
    let listed = args.initial_cluster.as_ref().map(|cluster| {
        let own =
            cluster.split(',').filter_map(|part| part.trim().split_once('=')).filter(|(name, _)| *name == args.name);
        own.map(|(_, url)| url).collect::<Vec<_>>().join(",")
    });
    let own = args.initial_advertise_peer_urls.clone().or(listed.filter(|listed| !listed.is_empty()));
    give("initial-advertise-peer-urls", own);
    Settings::read(&given, &BTreeMap::new())
}

pub async fn run(session: &Session, args: &RestoreArgs) -> Outcome {
    let settings = settings(args)?;
    snapshot::verify(&args.file)?;
    let options = serve::member_options(&settings)?;
    let file = args.file.clone();
    let restored = tokio::task::spawn_blocking(move || restore(options, &file)).await;
    let restored = restored.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let restored = restored.map_err(|error| refused(&args.file, &settings.data_dir, &error))?;
    let urls: Vec<String> = settings.advertise_peer.iter().map(ToString::to_string).collect();
    let mut serve = format!(
        "vt store serve --name {} --data-dir {} --initial-advertise-peer-urls {2} --listen-peer-urls {2}",
        settings.name,
        args.data_dir,
        urls.join(",")
    );
    for (flag, value) in
        [("initial-cluster", &args.initial_cluster), ("initial-cluster-token", &args.initial_cluster_token)]
    {
        if let Some(value) = value {
            serve.extend([" --", flag, " ", value]);
        }
    }
    let others = settings.cluster.keys().filter(|name| **name != settings.name);
    let others: Vec<String> = others
        .map(|name| format!("vt store restore {} --name {name} ...   for the member {name}", args.file.display()))
        .collect();
    let next: Vec<String> = others.into_iter().chain([serve]).collect();
    let receipt = json!({
        "operation": "restore",
        "file": args.file,
        "data_dir": settings.data_dir,
        "name": settings.name,
        "member": format!("{:x}", restored.member),
        "cluster": format!("{:x}", restored.cluster),
        "revision": restored.revision.0,
        "rows": restored.rows,
        "next": next,
    });
    session.out.value(&receipt, || {
        let mut text = format!(
            "restored {} into {}\n  member    {:x} of cluster {:x}\n  revision  {}\n  rows      {}\n",
            settings.name,
            settings.data_dir.display(),
            restored.member,
            restored.cluster,
            restored.revision,
            restored.rows
        );
        for (place, command) in next.iter().enumerate() {
            text += if place == 0 { "  next      " } else { "            " };
            text += command;
            text.push('\n');
        }
        text
    })?;
    Ok(0)
}

fn refused(file: &Path, dir: &Path, error: &OpenError) -> Failure {
    match error {
        OpenError::Store(store::Error::Corrupt { path, .. }) if path == file => {
            Failure::new(Code::Failed, format!("{} is no snapshot that can be restored", file.display()))
                .why(error.to_string())
                .hint("a snapshot of etcd itself: start an etcd on it, then vt store migrate --from etcd://HOST:PORT")
        }
        OpenError::Settings(why) if why.ends_with("is not empty") => {
            Failure::new(Code::Conflict, why.clone()).hint("choose another --data-dir")
        }
        OpenError::Settings(why) => Failure::usage(why.clone()).hint("vt store restore --help"),
        error => Failure::new(Code::Failed, format!("{} cannot be made", dir.display())).why(error.to_string()),
    }
}
