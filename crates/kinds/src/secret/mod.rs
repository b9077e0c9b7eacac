//! The secret bundle of an env: versioned, encrypted at rest, delivered over the guest channel.

mod contract;
pub mod file;

pub use contract::{NAME, Spec, Wanted, contract};

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use iam::Sealer;
use model::{Code, Error, Id, Row, Scope};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Door, Kind, Report, Table, Turn, Wish};

use crate::release;

pub struct Secret {
    /// Absent in a process that only describes the kinds.
    pub sealer: Option<Arc<Sealer>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// Binds the encrypted content to its place: moved to another env or version it does not open.
fn place(scope: &Scope, id: &Id, version: u64) -> Vec<u8> {
    format!("{scope}/{id}/{version}").into_bytes()
}

/// The bundle's values at one version.
pub async fn open(
    door: &Door,
    sealer: &Sealer,
    scope: &Scope,
    id: &Id,
    version: u64,
) -> Result<BTreeMap<String, String>, Error> {
    let lost = || {
        Error::new(Code::Failed, format!("version {version} of the secret bundle cannot be opened"))
            .reason("secrets_missing")
    };
    let sealed = door.sealed(id, version).await?.ok_or_else(lost)?;
    let plain = sealer.open(&place(scope, id, version), &sealed).map_err(|error| lost().why(error.to_string()))?;
    serde_json::from_slice(&plain).map_err(|_| lost())
}

/// The version of the bundle at `scope`, when there is one.
pub fn version_at(table: &Table, scope: &Scope) -> Option<u64> {
    bundle_at(table, scope).map(|(_, version)| version)
}

/// The bundle at `scope` with its version.
pub fn bundle_at(table: &Table, scope: &Scope) -> Option<(Id, u64)> {
    let row = table.at(scope, "secret").find(|row| !row.deleting())?;
    let spec: Spec = read("spec", &row.spec).ok()?;
    Some((row.id.clone(), spec.version))
}

/// Refuses a release whose processes require secrets while the env has none.
pub async fn require(cx: Admission<'_>, scope: &Scope, release: &Row) -> Result<(), Error> {
    let spec: release::Spec = read("spec", &release.spec)?;
    let needing = spec.manifest.processes.iter().find(|(_, process)| process.secrets.required);
    let Some((process, _)) = needing else { return Ok(()) };
    let found = reconcile::rows::list(&**cx.door.store(), scope, "secret", None, 1, |row| row.scope == *scope).await?;
    if found.rows.is_empty() {
        let message = format!("process `{process}` requires secrets, and this env has none");
        return Err(Error::new(Code::PreconditionFailed, message)
            .hint("vt secrets set KEY=-")
            .reason("secrets_missing"));
    }
    Ok(())
}

#[async_trait]
impl Kind for Secret {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let sealer = self.sealer.as_deref().ok_or_else(|| Error::new(Code::Unavailable, "no secrets are kept here"))?;
        // The reader's message could hold a value it stumbled over, so only the place is told.
        let wanted: Wanted = read("spec", &wish.spec).map_err(|error| {
            let field = error.field.unwrap_or_else(|| "spec".into());
            let message = format!("`{field}` is not of the form {{\"set\": {{KEY: VALUE}}, \"unset\": [KEY]}}");
            Error::invalid(field, message)
        })?;
        let (mut values, version) = match wish.before {
            None => (BTreeMap::new(), 1),
            Some(row) => {
                let spec: Spec = read("spec", &row.spec)?;
                let values = open(cx.door, sealer, wish.scope, wish.id, spec.version).await?;
                (values, spec.version + 1)
            }
        };
        let before = values.clone();
        for key in &wanted.unset {
            if values.remove(key).is_none() {
                return Err(Error::invalid("spec.unset", format!("`{key}` is not in the bundle")));
            }
        }
        values.extend(wanted.set);
        file::check(&values)?;
        if let Some(row) = wish.before
            && before == values
        {
            // Nothing new: no new version, so that nothing restarts.
            return Ok(Admitted { spec: row.spec.clone(), ..Admitted::default() });
        }
        let plain = serde_json::to_vec(&values).map_err(|_| Error::internal("the bundle cannot be written"))?;
        let sealed = sealer.seal(&place(wish.scope, wish.id, version), &plain);
        let spec = Spec { keys: values.into_keys().collect(), version };
        Ok(Admitted { sealed: Some((version, sealed)), name: Some(NAME.into()), ..Admitted::spec(&spec)? })
    }

    async fn turn(&self, _turn: &Turn) -> Result<Report, Error> {
        Ok(Report::ready())
    }
}
