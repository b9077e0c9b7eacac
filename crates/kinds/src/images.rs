//! Images as kinds use them: resolved once for a release, made ready on a node for a machine.

use std::sync::Arc;
use std::time::Duration;

use image::{Platform, Progress, Reference, Resolved, RootImage, Source, Uploads};
use model::{Code, Error, Id};
use reconcile::Table;
use tokio::sync::watch;

/// Blobs younger than this may belong to a release that is about to be made.
const UPLOAD_AGE_MIN: Duration = Duration::from_hours(1);

/// The image store of this machine with all it needs to fetch.
#[derive(Clone)]
pub struct Images {
    pub store: image::Store,
    pub uploads: Uploads,
    pub platform: Platform,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("platform", &self.platform).finish_non_exhaustive()
    }
}

/// What was let go of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub images: usize,
    pub upload_bytes: u64,
}

/// What a caller is told of a fault with an image.
pub fn told(error: image::Error) -> Error {
    let code = match error.code() {
        "image_too_large" => Code::TooLarge,
        "disk_full" => Code::Unavailable,
        _ => Code::Failed,
    };
    Error::new(code, error.to_string()).hint(error.hint()).reason(error.code())
}

impl Images {
    /// Looks the image up and pins it; nothing is downloaded but its documents.
    pub async fn resolve(&self, text: &str, project: &Id) -> Result<Resolved, Error> {
        let reference: Reference = text.parse().map_err(|error: image::Error| {
            Error { field: Some("spec.image".into()), ..Error::new(Code::InvalidArgument, error.to_string()) }
                .hint(error.hint())
        })?;
        if reference.is_local() {
            let message = format!("`{text}` names a file; the cloud reads images from registries and uploads only");
            return Err(Error::invalid("spec.image", message).hint("`vt deploy` uploads such an image by itself"));
        }
        let source = self.source(&reference, project).await?;
        image::resolve(&*source, self.platform, self.store.limits()).await.map_err(told)
    }

    /// Makes the root file system ready; see [`image::Store::ensure`].
    pub async fn ensure(
        &self,
        resolved: &Resolved,
        project: &Id,
        progress: &watch::Sender<Progress>,
    ) -> Result<RootImage, Error> {
        let source = self.source(&resolved.pinned(), project).await?;
        self.store.ensure(resolved, source, Some(progress)).await.map_err(told)
    }

    /// Lets go of what no row needs any more: root file systems of no machine of `node` beyond the disk budget, and
    /// uploaded blobs of no release.
    pub fn collect(&self, table: &Table, node: &Id) -> Result<Collected, Error> {
        let machines = table.of_kind("vm").filter(|row| row.node.as_ref() == Some(node));
        let in_use = machines.filter_map(|row| row.spec["image"].as_str()?.parse().ok()).collect();
        let images = self.store.retain(in_use).map_err(told)?.len();
        let mut upload_bytes = 0;
        for project in table.of_kind("project") {
            let inside = project.inner_scope();
            let releases = table.below(&inside).filter(|row| row.kind == "release");
            let manifests =
                releases.filter_map(|row| row.spec["image"].as_str()?.strip_prefix("upload:")?.parse().ok());
            let kept = manifests.collect();
            upload_bytes += self.uploads.sweep(project.id.as_str(), &kept, UPLOAD_AGE_MIN).map_err(told)?;
        }
        Ok(Collected { images, upload_bytes })
    }

    async fn source(&self, reference: &Reference, project: &Id) -> Result<Arc<dyn Source>, Error> {
        if let Reference::Upload(digest) = reference {
            return self.uploads.source(project.as_str(), *digest).await.map_err(told);
        }
        self.store.source(reference).await.map_err(told)
    }
}
