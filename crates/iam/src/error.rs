//! What can go wrong with keys and certificates. Refusals of callers are [`model::Error`]s.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not what it should be: {what}", .path.display())]
    Malformed { path: PathBuf, what: String },
    /// Without its key the authority cannot sign; a new one would not be trusted by those who know the old one.
    #[error("{} is there but {} is missing; bring it back from a backup, or remove both to begin with a new authority", .certificate.display(), .key.display())]
    KeyMissing { certificate: PathBuf, key: PathBuf },
    #[error("{} does not belong to {}; bring the matching pair back from a backup", .key.display(), .certificate.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    /// Certificates made by such a clock would be refused by everyone else.
    #[error(
        "the machine's clock is far off: it says {now}, {why}; set the clock (for example `timedatectl set-ntp true`) and start again"
    )]
    Clock { now: String, why: String },
    #[error("a certificate could not be made")]
    Issue(#[source] rcgen::Error),
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
    /// Wrong master key, wrong context, or changed bytes: they cannot be told apart.
    #[error("the sealed content cannot be opened: it was changed, or sealed for something else")]
    Open,
    #[error("the content was sealed with master key {found}, which is not in {}", .path.display())]
    KeyUnknown { found: String, path: PathBuf },
    #[error("the content was sealed in form {found}; this program reads form {known}")]
    FormUnknown { found: u8, known: u8 },
}
