//! A release: one image by digest and one manifest. Immutable; a rollback is a new deploy of an old release.

mod contract;

pub use contract::{Spec, Status, Wanted, contract};

use async_trait::async_trait;
use model::manifest::Manifest;
use model::{Code, Error, Level};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};

use crate::images::Images;

#[derive(Debug)]
pub struct Release {
    /// Absent in a process that only describes the kinds.
    pub images: Option<Images>,
}

/// Refuses what the manifest's format has and this version of the cloud cannot do yet, by name.
fn refuse_unsupported(manifest: &Manifest) -> Result<(), Error> {
    if let Some(volume) = manifest.volumes.first() {
        let message = format!("volume `{}`: volumes are not available yet", volume.name);
        return Err(Error::invalid("spec.manifest.volumes", message).hint("remove [[volumes]] and the mounts"));
    }
    for (name, process) in &manifest.processes {
        let field = |rest: &str| format!("spec.manifest.processes.{name}.{rest}");
        if process.scaling.min == 0 && (process.ports.is_empty() || process.health.is_none()) {
            let message = format!(
                "`{}` is 0: an instance that sleeps is woken by who asks at its route, and without a port and a health \
                 check it has none",
                field("scaling.min")
            );
            return Err(Error::invalid(field("scaling.min"), message)
                .hint("add [[processes.NAME.ports]] and [processes.NAME.health], or use 1 or more"));
        }
        if process.scaling.min == 0 && process.scaling.max > 1 {
            let message =
                format!("`{}` is above 1 with `min = 0`: instances are not added with load yet", field("scaling.max"));
            return Err(Error::invalid(field("scaling.max"), message).hint("use max = 1, or a min of 1 or more"));
        }
    }
    Ok(())
}

#[async_trait]
impl Kind for Release {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let wanted: Wanted = read("spec", &wish.spec)?;
        wanted.manifest.validate()?;
        refuse_unsupported(&wanted.manifest)?;
        let images =
            self.images.as_ref().ok_or_else(|| Error::new(Code::Unavailable, "no images can be resolved here"))?;
        let project = wish.scope.id(Level::Project).ok_or_else(|| Error::internal("a release lives in a project"))?;
        let resolved = images.resolve(&wanted.image, project).await?;
        for (name, process) in &wanted.manifest.processes {
            if process.command.is_empty() && resolved.config.entrypoint.is_empty() && resolved.config.cmd.is_empty() {
                let field = format!("spec.manifest.processes.{name}.command");
                let message = format!("the image has neither entrypoint nor command, and process `{name}` names none");
                return Err(Error::invalid(field, message)
                    .hint("set `command = [\"/path/to/program\"]`")
                    .reason("no_entrypoint"));
            }
        }
        let claimed = format!("retired/release/{}/", wish.scope);
        let taken = cx.door.claims(&claimed).await?;
        let number = taken.iter().filter_map(|(claim, _)| claim.rsplit('/').next()?.parse::<u64>().ok()).max();
        let number = number.unwrap_or(0) + 1;
        let manifest_hash = wanted.manifest.hash();
        let spec = Spec { number, image: wanted.image, resolved, manifest: wanted.manifest, manifest_hash };
        Ok(Admitted {
            claims: vec![format!("{claimed}{number:08}")],
            name: Some(format!("v{number}")),
            ..Admitted::spec(&spec)?
        })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        let spec: Spec = read("spec", &turn.row.spec)?;
        let status =
            Status { number: spec.number, digest: spec.resolved.digest.to_string(), manifest_hash: spec.manifest_hash };
        let status = serde_json::to_value(status).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Report { status, ..Report::ready() })
    }
}
