//! The engine itself: one at a time, on the thread whose network namespace it serves.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tracing::{info, warn};

use crate::address::{Names, Prefixes};
use crate::config::Config;
use crate::desired::Desired;
use crate::error::Error;
use crate::netlink::Netlink;
use crate::nft::{Listing, Nft};
use crate::observe::{Device, Devices, Kind, Observed};
use crate::preflight::preflight;
use crate::service::{Applied, Cleared, Opened};
use crate::state::State;
use crate::sysctl::{self, Settings};
use crate::turn::{self, Step};
use crate::verify::{self, Check, Evidence};
use crate::wish::Wish;
use crate::{ruleset, tap};

/// Of one act, be it the largest apply.
const ACT_DEADLINE: Duration = Duration::from_mins(2);
/// How many engines' tables may be told apart by name.
const TABLE_PREFIX: &str = "vt_";

/// What runs on the engine's thread.
pub struct Engine {
    config: Config,
    names: Names,
    prefixes: Prefixes,
    state: State,
    nft: Nft,
    netlink: Netlink,
    /// The last desired state that was applied whole.
    held: Option<Desired>,
    /// The rules that were last loaded: as text, and as the kernel listed them right after.
    rules: Option<(String, Vec<Listing>)>,
}

impl Engine {
    /// Takes the state folder, removes what an earlier run left over, and puts the last good state back.
    pub async fn open(config: Config) -> Result<(Self, Opened), Error> {
        config.check()?;
        let found = preflight(&config).await;
        let state = State::open(&config.state_dir)?;
        let last = state.desired()?;
        let mut opened = Opened { warnings: found.warnings, ..Opened::default() };
        for error in found.errors {
            // A range that became taken while we were away must not take the guests' networks down with it.
            if last.is_some() && matches!(error, Error::PrefixTaken { .. }) {
                opened.warnings.push(error);
            } else {
                return Err(error);
            }
        }
        let mut engine = Self {
            names: config.names()?,
            prefixes: config.prefixes(),
            state,
            nft: Nft::find()?,
            netlink: Netlink::open()?,
            held: None,
            rules: None,
            config,
        };
        engine.sweep(last.as_ref(), &mut opened).await?;
        if let Some(last) = last {
            opened.generation = Some(last.generation);
            match engine.apply(last.clone()).await {
                Ok(applied) => opened.restored = applied.changed,
                Err(error) => {
                    warn!(code = error.code(), %error, "the last good state could not be put back whole");
                    opened.warnings.push(error);
                    engine.held = Some(last);
                }
            }
        }
        Ok((engine, opened))
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn prefixes(&self) -> Prefixes {
        self.prefixes
    }

    async fn sweep(&self, last: Option<&Desired>, opened: &mut Opened) -> Result<(), Error> {
        let devices = self.devices().await?;
        let wish = Wish::new(&self.config, last.unwrap_or(&Desired::default()))?;
        let wished: Vec<&str> = wish
            .bridges
            .iter()
            .flat_map(|bridge| std::iter::once(&bridge.name).chain(bridge.taps.iter().map(|tap| &tap.name)))
            .map(String::as_str)
            .collect();
        opened.swept = self.delete(&devices, |device| !wished.contains(&device.name.as_str())).await?;
        if last.is_none() && !self.nft.tables(&self.names.table()).await?.is_empty() {
            self.nft.load(&ruleset::remove(&self.names.table())).await?;
            opened.swept.push(format!("table {}", self.names.table()));
        }
        if !opened.swept.is_empty() {
            info!(swept = ?opened.swept, "removed what an earlier run left over");
        }
        Ok(())
    }

    async fn delete(&self, devices: &Devices, choose: impl Fn(&Device) -> bool) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for step in turn::delete(&self.names, devices, choose) {
            self.netlink.take(&step).await?;
            if let Step::DeleteDevice { name } = step {
                removed.push(format!("device {name}"));
            }
        }
        Ok(removed)
    }

    async fn devices(&self) -> Result<Devices, Error> {
        self.netlink.devices(|name| self.names.owns(name)).await
    }

    pub async fn apply(&mut self, desired: Desired) -> Result<Applied, Error> {
        within(self.apply_unbounded(desired)).await
    }

    async fn apply_unbounded(&mut self, desired: Desired) -> Result<Applied, Error> {
        if let Some(held) = self.held.as_ref().filter(|held| held.generation > desired.generation) {
            return Err(Error::Generation { given: desired.generation, held: held.generation });
        }
        let wish = Wish::new(&self.config, &desired)?;
        let mut applied = Applied { generation: desired.generation, ..Applied::default() };
        let turn = turn::plan(&wish, &self.devices().await?, &settings(&wish))?;
        for step in &turn.before {
            self.netlink.take(step).await?;
            applied.changed.push(format!("{step:?}"));
        }
        applied.rules_replaced = self.load_rules(ruleset::render(&wish)).await?;
        // Forwarding only once the rules stand that say what may be forwarded.
        applied.changed.extend(self.set_node()?);
        for step in &turn.after {
            self.netlink.take(step).await?;
            applied.changed.push(format!("{step:?}"));
        }
        if self.held.as_ref() != Some(&desired) {
            self.state.keep_desired(&desired)?;
            self.held = Some(desired);
        }
        if applied.rules_replaced || !applied.changed.is_empty() {
            let (generation, steps) = (applied.generation, applied.changed.len());
            info!(generation, steps, rules_replaced = applied.rules_replaced, "applied");
        }
        Ok(applied)
    }

    /// Replaces the rules unless they are these already, and nobody touched them. Replacing would be harmless, but it
    /// sets the counters back to zero.
    async fn load_rules(&mut self, text: String) -> Result<bool, Error> {
        let table = self.names.table();
        if let Some((loaded, listed)) = &self.rules
            && *loaded == text
            && same(&self.nft.tables(&table).await?, listed)
        {
            return Ok(false);
        }
        self.nft.load(&text).await?;
        let listed = self.nft.tables(&table).await?;
        self.rules = Some((text, listed));
        Ok(true)
    }

    /// The node's own settings. What they were is on disk before they change.
    fn set_node(&self) -> Result<Vec<String>, Error> {
        let mut wanted: Vec<(String, String)> = Vec::new();
        if sysctl::node().iter().any(|(path, value)| sysctl::get(path).as_ref() != Some(value)) {
            // In this order: an interface must be told to go on listening before forwarding silences it.
            wanted.extend(sysctl::keep_listening()?);
            wanted.extend(sysctl::node());
        }
        wanted.retain(|(path, value)| sysctl::get(path).as_ref() != Some(value));
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut before = self.state.before()?;
        for (path, value) in &wanted {
            let now = sysctl::get(path).unwrap_or_default();
            before.entry(path.clone()).or_insert((now, value.clone()));
        }
        self.state.keep_before(&before)?;
        let mut changed = Vec::new();
        for (path, value) in wanted {
            sysctl::put(&path, &value)?;
            changed.push(format!("Setting {path} = {value}"));
        }
        Ok(changed)
    }

    pub async fn observe(&self) -> Result<Observed, Error> {
        within(async {
            let (bridges, taps) =
                self.devices().await?.into_values().partition(|device: &Device| device.kind == Kind::Bridge);
            let listed = self.nft.tables(&self.names.table()).await?;
            let current = |table: &Listing| {
                self.rules.as_ref().is_some_and(|(_, loaded)| loaded.iter().any(|one| one.objects == table.objects))
            };
            let tables = listed.iter().map(|table| table.seen(current(table))).collect();
            Ok(Observed { generation: self.held.as_ref().map(|held| held.generation), bridges, taps, tables })
        })
        .await
    }

    pub async fn verify(&self) -> Result<Vec<Check>, Error> {
        within(async {
            let wish = Wish::new(&self.config, self.held.as_ref().unwrap_or(&Desired::default()))?;
            let evidence = Evidence {
                devices: &self.devices().await?,
                settings: &settings(&wish),
                tables: &self.nft.tables(&self.names.table()).await?,
                installed: self.rules.as_ref().map_or(&[], |(_, listed)| listed),
                foreign: &self.nft.forward_policies_drop().await?,
            };
            Ok(verify::verify(&wish, &evidence))
        })
        .await
    }

    /// A descriptor for a port's tap, opened in the engine's network namespace.
    pub fn attach(&self, network: u16, offset: u8) -> Result<OwnedFd, Error> {
        let networks = self.held.iter().flat_map(|held| &held.networks);
        let mut ports = networks.filter(|one| one.number == network).flat_map(|one| &one.ports);
        if !ports.any(|port| port.offset == offset) {
            return Err(Error::PortUnknown { network, offset });
        }
        tap::attach(&self.names.tap(network, offset))
    }

    pub async fn clear(&mut self) -> Result<Cleared, Error> {
        within(self.clear_unbounded()).await
    }

    async fn clear_unbounded(&mut self) -> Result<Cleared, Error> {
        let mut cleared =
            Cleared { removed: self.delete(&self.devices().await?, |_| true).await?, ..Cleared::default() };
        // Forwarding ends before the rules that bounded it.
        let tables = self.nft.table_names().await?;
        let (ours, others): (Vec<_>, Vec<_>) = tables
            .into_iter()
            .filter(|(_, name)| name.starts_with(TABLE_PREFIX))
            .partition(|(_, name)| *name == self.names.table());
        // Another engine on this machine lives on the same settings.
        if others.is_empty() {
            for (path, (before, after)) in self.state.before()?.into_iter().rev() {
                if sysctl::get(&path) == Some(after) {
                    sysctl::put(&path, &before)?;
                    cleared.restored.push(format!("{path} = {before}"));
                }
            }
        }
        if !ours.is_empty() {
            self.nft.load(&ruleset::remove(&self.names.table())).await?;
            cleared.removed.extend(ours.into_iter().map(|(family, name)| format!("table {family} {name}")));
        }
        self.state.forget()?;
        self.held = None;
        self.rules = None;
        info!(removed = cleared.removed.len(), "cleared");
        Ok(cleared)
    }
}

async fn within<T>(act: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(ACT_DEADLINE, act).await {
        Ok(result) => result,
        Err(_) => Err(Error::Deadline { seconds: ACT_DEADLINE.as_secs() }),
    }
}

/// What the wish's settings are now.
fn settings(wish: &Wish) -> Settings {
    sysctl::all(wish).into_keys().filter_map(|path| Some((path.clone(), sysctl::get(&path)?))).collect()
}

fn same(one: &[Listing], two: &[Listing]) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.objects == two.objects)
}
