//! The program `nft`: transactions on its standard input, listings as JSON on its output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use world::process::Run;

use crate::error::Error;
use crate::observe::{Drops, TableSeen};

/// Of one run of `nft`. A transaction of the most ports a node may have takes seconds, not minutes.
const RUN_DEADLINE: Duration = Duration::from_mins(1);
/// Where it is looked for after PATH, which root's services often have without the sbin folders.
const FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
const FAMILIES: [&str; 2] = ["inet", "bridge"];

/// The program, found once.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
}

/// One table as the kernel holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    pub family: String,
    /// Chains, sets and rules in the kernel's order, without handles and counters: equal when the rules are equal.
    pub objects: Vec<Value>,
    /// Which objects a chain consists of: itself and its rules. A full node has thousands.
    chains: BTreeMap<String, Vec<usize>>,
    pub drops: Vec<Drops>,
}

impl Nft {
    /// # Errors
    /// [`Error::NftMissing`].
    pub fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(FOLDERS.iter().map(PathBuf::from))
            .map(|folder| folder.join("nft"))
            .find(|program| executable(program))
            .map(|program| Self { program })
            .ok_or(Error::NftMissing)
    }

    /// One transaction: all of it or nothing.
    ///
    /// # Errors
    /// [`Error::RulesLoad`] with the program's own words.
    pub async fn load(&self, text: &str) -> Result<(), Error> {
        self.run(&["-f", "-"], text).await
    }

    /// Asks the kernel whether it would take the transaction, and changes nothing.
    ///
    /// # Errors
    /// [`Error::RulesLoad`].
    pub async fn check(&self, text: &str) -> Result<(), Error> {
        self.run(&["-c", "-f", "-"], text).await
    }

    async fn run(&self, arguments: &[&str], text: &str) -> Result<(), Error> {
        let run = Run::new(self.program.to_string_lossy()).args(arguments.iter().copied());
        match run.input(text.as_bytes()).deadline(RUN_DEADLINE).output().await {
            Ok(_) => Ok(()),
            Err(world::process::Error::Missing { .. }) => Err(Error::NftMissing),
            Err(error) => Err(Error::RulesLoad { detail: error.to_string() }),
        }
    }

    /// Both of our tables, those that exist.
    ///
    /// # Errors
    /// [`Error::RulesList`].
    pub async fn tables(&self, name: &str) -> Result<Vec<Listing>, Error> {
        let present = self.list(&["list", "tables"]).await?;
        let mut found = Vec::new();
        for family in FAMILIES {
            let ours = |object: &&Value| object["table"]["family"] == family && object["table"]["name"] == name;
            if present.iter().any(|object| ours(&object)) {
                let objects = self.list(&["list", "table", family, name]).await?;
                found.push(Listing::new(family, objects));
            }
        }
        Ok(found)
    }

    /// The names of all tables of all families, with their family.
    ///
    /// # Errors
    /// [`Error::RulesList`].
    pub async fn table_names(&self) -> Result<Vec<(String, String)>, Error> {
        let objects = self.list(&["list", "tables"]).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(objects.iter().map(|object| (text(&object["table"]["family"]), text(&object["table"]["name"]))).collect())
    }

    /// Other people's chains that drop what is forwarded unless told otherwise, as (family, table, chain).
    ///
    /// # Errors
    /// [`Error::RulesList`].
    pub async fn forward_policies_drop(&self) -> Result<Vec<(String, String, String)>, Error> {
        let objects = self.list(&["list", "chains"]).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(objects
            .iter()
            .map(|object| &object["chain"])
            .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop" && chain["family"] != "bridge")
            .map(|chain| (text(&chain["family"]), text(&chain["table"]), text(&chain["name"])))
            .collect())
    }

    async fn list(&self, arguments: &[&str]) -> Result<Vec<Value>, Error> {
        let failed = |detail: String| Error::RulesList { detail };
        let mut command = Command::new(&self.program);
        // Numbers rather than names for what differs with /etc files; not counted in world's bound, since a listing of
        // a full node is some megabytes, and its size follows from ours.
        command.args(["-j", "-n"]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(RUN_DEADLINE, command.output()).await {
            Err(_) => return Err(failed(format!("nft did not end within {} s", RUN_DEADLINE.as_secs()))),
            Ok(Err(source)) => return Err(failed(source.to_string())),
            Ok(Ok(output)) => output,
        };
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let listing: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
        match listing {
            Value::Object(mut listing) => match listing.remove("nftables") {
                Some(Value::Array(objects)) => Ok(objects),
                _ => Err(failed("nft gave no list".to_owned())),
            },
            _ => Err(failed("nft gave no object".to_owned())),
        }
    }
}

impl Listing {
    fn new(family: &str, mut objects: Vec<Value>) -> Self {
        objects.retain(|object| object.get("metainfo").is_none());
        let drops = objects.iter().filter_map(|object| drops(family, &object["rule"])).collect();
        for object in &mut objects {
            without_state(object);
        }
        let mut chains: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, object) in objects.iter().enumerate() {
            if let Some(name) = object["chain"]["name"].as_str().or_else(|| object["rule"]["chain"].as_str()) {
                chains.entry(name.to_owned()).or_default().push(at);
            }
        }
        Self { family: family.to_owned(), objects, chains, drops }
    }

    pub fn seen(&self, current: bool) -> TableSeen {
        let rules = self.objects.iter().filter(|object| object.get("rule").is_some()).count();
        TableSeen { family: self.family.clone(), rules, current, drops: self.drops.clone() }
    }

    /// The chain itself and its rules, in order; empty when there is no such chain.
    pub fn chain(&self, name: &str) -> impl Iterator<Item = &Value> + use<'_> {
        self.chains.get(name).into_iter().flatten().filter_map(|at| self.objects.get(*at))
    }
}

/// The counter of a rule that drops, with its reason.
fn drops(family: &str, rule: &Value) -> Option<Drops> {
    let parts = rule["expr"].as_array()?;
    parts.iter().find(|part| part.get("drop").is_some())?;
    let counter = parts.iter().find_map(|part| part.get("counter"))?;
    Some(Drops {
        family: family.to_owned(),
        chain: rule["chain"].as_str()?.to_owned(),
        reason: rule["comment"].as_str()?.to_owned(),
        packets: counter["packets"].as_u64()?,
        bytes: counter["bytes"].as_u64()?,
    })
}

/// Takes out what changes without anyone having changed a rule.
fn without_state(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("handle");
            if let Some(counter) = fields.get_mut("counter") {
                *counter = Value::Null;
            }
            fields.values_mut().for_each(without_state);
        }
        Value::Array(items) => items.iter_mut().for_each(without_state),
        _ => {}
    }
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_compare_without_handles_and_counters() {
        let rule = |handle: u64, packets: u64| {
            serde_json::json!({"rule": {"chain": "c", "handle": handle, "comment": "mac",
                "expr": [{"counter": {"packets": packets, "bytes": 2 * packets}}, {"drop": null}]}})
        };
        let (one, two) = (Listing::new("bridge", vec![rule(1, 0)]), Listing::new("bridge", vec![rule(9, 5)]));
        assert_eq!(one.objects, two.objects);
        assert_eq!((two.drops[0].reason.as_str(), two.drops[0].packets, two.drops[0].bytes), ("mac", 5, 10));
        assert_eq!(two.chain("c").count(), 1);
    }
}
