//! Everything that can go wrong between a reference and a root image.

use std::io;
use std::sync::Arc;

use crate::digest::Digest;

/// Reason codes, as rows and callers see them.
pub mod code {
    pub const IMAGE_PULL_FAILED: &str = "image_pull_failed";
    pub const ROOTFS_BUILD_FAILED: &str = "rootfs_build_failed";
    pub const IMAGE_TOO_LARGE: &str = "image_too_large";
    pub const IMAGE_PULL_TIMEOUT: &str = "image_pull_timeout";
    pub const IMAGE_LAYER_INVALID: &str = "image_layer_invalid";
    pub const DISK_FULL: &str = "disk_full";
}

/// What was being done and why it failed. Cheap to clone: one failure is told to everyone who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("`{text}` is not an image reference: {problem}")]
    ParseReference { text: String, problem: String, nearest: String },
    #[error("`{text}` is not a sha256 digest")]
    ParseDigest { text: String },
    #[error("{reference} was not found at its source: {detail}")]
    FindImage { reference: String, detail: String },
    #[error("{reference} has no image for {wanted}; it has {}", list(.available))]
    PickPlatform { reference: String, wanted: String, available: Vec<String> },
    #[error("{registry} refused access to {reference}")]
    Authorize { reference: String, registry: String },
    #[error("the credentials file {path} could not be used: {detail}")]
    ReadCredentials { path: String, detail: String },
    #[error("{registry} could not be reached: {detail}")]
    Reach { registry: String, detail: String },
    #[error("{registry} answered {status} for {what}")]
    Answer { registry: String, what: String, status: u16 },
    #[error("{what} has digest {found}, not {wanted}")]
    VerifyDigest { what: String, wanted: Digest, found: String },
    #[error("{what} has {found} bytes, not {wanted}")]
    VerifySize { what: String, wanted: u64, found: u64 },
    #[error("{what} is not a usable image document: {problem}")]
    ReadManifest { what: String, problem: String },
    #[error("the image has {found} {what}, the limit is {limit}")]
    LimitCount { what: &'static str, found: u64, limit: u64 },
    #[error("{what} is {found} bytes, the limit is {limit}")]
    LimitSize { what: String, found: u64, limit: u64 },
    #[error("{what} took longer than {limit_s} s")]
    LimitTime { what: String, limit_s: u64 },
    #[error("layer {layer}: member `{member}` {problem}")]
    ApplyMember { layer: String, member: String, problem: String },
    #[error("layer {layer} is not a readable archive: {problem}")]
    ReadLayer { layer: String, problem: String },
    #[error("the disk that holds {path} is full")]
    DiskFull { path: String },
    #[error("could not {act}: {source}")]
    Disk { act: String, source: Arc<io::Error> },
    #[error("the root image of {digest} is damaged: its file hashes to {found}, it was built as {wanted}")]
    VerifyRoot { digest: Digest, wanted: String, found: String },
    #[error("the image store {path} is in use by another process")]
    LockStore { path: String },
    #[error("{what} is already being built by too many callers or was given up")]
    Cancelled { what: String },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The reason code of the row that waits for this image.
    pub fn code(&self) -> &'static str {
        match self {
            Error::ParseReference { .. }
            | Error::ParseDigest { .. }
            | Error::FindImage { .. }
            | Error::PickPlatform { .. }
            | Error::Authorize { .. }
            | Error::ReadCredentials { .. }
            | Error::Reach { .. }
            | Error::Answer { .. }
            | Error::VerifyDigest { .. }
            | Error::VerifySize { .. }
            | Error::ReadManifest { .. }
            | Error::Cancelled { .. } => code::IMAGE_PULL_FAILED,
            Error::LimitCount { .. } | Error::LimitSize { .. } => code::IMAGE_TOO_LARGE,
            Error::LimitTime { .. } => code::IMAGE_PULL_TIMEOUT,
            Error::ApplyMember { .. } | Error::ReadLayer { .. } => code::IMAGE_LAYER_INVALID,
            Error::DiskFull { .. } => code::DISK_FULL,
            Error::Disk { .. } | Error::VerifyRoot { .. } | Error::LockStore { .. } => code::ROOTFS_BUILD_FAILED,
        }
    }

    /// What to do about it; may be empty.
    pub fn hint(&self) -> String {
        match self {
            Error::ParseReference { nearest, .. } => {
                if nearest.is_empty() {
                    "write NAME:TAG, NAME@sha256:DIGEST, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE".into()
                } else {
                    format!("write {nearest}")
                }
            }
            Error::ParseDigest { .. } => "write sha256: and 64 hexadecimal digits in lower case".into(),
            Error::FindImage { .. } => "check the name and the tag, and that the image was pushed".into(),
            Error::PickPlatform { wanted, .. } => format!("build or push the image for {wanted}"),
            Error::Authorize { registry, .. } => {
                format!("add an entry for {registry} under `auths` in the credentials file, and check that it may pull")
            }
            Error::ReadCredentials { .. } => {
                "the file has the form {\"auths\": {\"HOST\": {\"auth\": \"base64 of user:password\"}}}".into()
            }
            Error::Reach { .. } => "check the host name and the network of this machine; it is tried again".into(),
            Error::Answer { .. } => "look at the registry's own log; it is tried again".into(),
            Error::VerifyDigest { .. } | Error::VerifySize { .. } => {
                "the source served other bytes than the manifest names: push the image again".into()
            }
            Error::ReadManifest { .. } => "use an OCI image or a Docker image of manifest version 2, schema 2".into(),
            Error::LimitCount { what, limit, .. } => format!("bring the image to at most {limit} {what}"),
            Error::LimitSize { .. } => "make the image smaller, or have the operator raise the limit".into(),
            Error::LimitTime { .. } => "check the speed of the way to the registry; it is tried again".into(),
            Error::ApplyMember { .. } | Error::ReadLayer { .. } => "build the image again without that member".into(),
            Error::DiskFull { .. } => "free space on that disk or give the image store another folder".into(),
            Error::Disk { .. } => "look at the disk and the permissions of the image store's folder".into(),
            Error::VerifyRoot { .. } => {
                "the damaged file was put away; the next attempt builds it again. Check the disk".into()
            }
            Error::LockStore { .. } => "stop the other process, or give this one a data folder of its own".into(),
            Error::Cancelled { .. } => "try again".into(),
        }
    }

    /// Worth another attempt without anybody changing anything.
    pub fn transient(&self) -> bool {
        match self {
            Error::Reach { .. } | Error::VerifySize { .. } | Error::VerifyDigest { .. } => true,
            Error::Answer { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            _ => false,
        }
    }

    /// The same thing as a row's reason.
    pub fn as_reason(&self) -> model::Reason {
        model::Reason::fault(self.code(), self.to_string(), self.hint())
    }

    /// A failed act on the disk; a full disk is told apart.
    pub(crate) fn disk(act: impl Into<String>, path: &std::path::Path, error: io::Error) -> Self {
        if is_disk_full(&error) {
            Error::DiskFull { path: path.display().to_string() }
        } else {
            Error::Disk { act: format!("{} {}", act.into(), path.display()), source: Arc::new(error) }
        }
    }

    /// Names the layer where the unpacker, which does not know it, left it open.
    pub(crate) fn in_layer(self, digest: &Digest) -> Self {
        match self {
            Error::ApplyMember { member, problem, .. } => Error::ApplyMember { layer: digest.short(), member, problem },
            Error::ReadLayer { problem, .. } => Error::ReadLayer { layer: digest.short(), problem },
            other => other,
        }
    }
}

/// No space, no quota, or a file larger than the file system allows.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn list(available: &[String]) -> String {
    if available.is_empty() { "none".into() } else { available.join(", ") }
}
