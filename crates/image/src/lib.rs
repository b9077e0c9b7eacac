//! Images: from a reference to a read-only root file system, one per digest.
//!
//! ```text
//! reference   text -> Reference                      what people write
//! source      Reference -> documents and blobs       registry, layout, archives, uploads
//! resolve     Source -> Resolved                     one platform's manifest, checked before any layer moves
//! store       Resolved -> RootImage                  one build per digest, kept while in use, oldest removed first
//!   fetch       layers into files, verified as they stream, three at a time
//!   unpack      layers -> tree in memory -> EROFS image; an archive's names never become paths here
//! uploads     blobs that tenants sent, each project's apart
//! package     an image as blobs to send
//! ```
//!
//! ```text
//!             resolve                    ensure
//! Source ---------------> Resolved -----------------> Store --(one flight per digest)--> RootImage
//!    ^  ^                                               |
//!    |  +------------------- layers --------------------+
//!    +-- open(Reference, Credentials) or Uploads::source(project, digest)
//! ```
//!
//! The crate runs one task per image that is being built, and that task's fetches; it ends when nobody waits for it.

pub mod archive;
mod credentials;
mod decompress;
mod digest;
pub mod error;
mod fetch;
mod flight;
pub mod limits;
pub mod manifest;
pub mod package;
mod platform;
mod progress;
mod reference;
mod resolve;
mod retry;
mod roots;
mod source;
mod store;
pub mod unpack;
mod uploads;

pub use credentials::{Credentials, Login};
pub use digest::{Digest, Hasher};
pub use error::{Error, Result};
pub use limits::Limits;
pub use manifest::{ExposedPort, ImageConfig};
pub use platform::Platform;
pub use progress::{Progress, Stage};
pub use reference::{Name, Reference};
pub use resolve::{Layer, Resolved, resolve};
pub use source::{BlobReader, Root, Source, open};
pub use store::{Config, Listed, RootImage, Store};
pub use uploads::Uploads;
