//! How much of an image is too much.

use std::time::Duration;

const GIB: u64 = 1 << 30;

/// Bounds on one image. A document, a tree or a download beyond them is refused with a named reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sum of the layers as they are transferred, in bytes.
    pub compressed_bytes_max: u64,
    /// The root image, in bytes, with files that a later layer removed.
    pub root_bytes_max: u64,
    pub layers_max: usize,
    /// One layer's transfer, retries included.
    pub layer_time_max: Duration,
    /// From the first request to the finished root image.
    pub total_time_max: Duration,
    /// Members of all layers together.
    pub entries_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed_bytes_max: 10 * GIB,
            root_bytes_max: 50 * GIB,
            layers_max: 128,
            layer_time_max: Duration::from_mins(5),
            total_time_max: Duration::from_mins(30),
            entries_max: ENTRIES_MAX,
        }
    }
}

/// A million members need about 300 MB while they are merged; large images have a fifth of that.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Names, link targets and extended attributes of all members together, held in memory.
pub const METADATA_BYTES_MAX: u64 = 256 << 20;
/// Linux's PATH_MAX.
pub const PATH_BYTES_MAX: usize = 4096;
/// Linux's NAME_MAX.
pub const NAME_BYTES_MAX: usize = 255;
/// Folders within folders.
pub const DEPTH_MAX: usize = 256;
/// Symbolic links followed while one member's folder is looked up, as Linux does.
pub const SYMLINK_HOPS_MAX: usize = 40;
/// All extended attributes of one member. EROFS counts them in 16 bits of 4-byte units.
pub const XATTR_BYTES_MAX: usize = 64 << 10;
/// A manifest or an index. Registries themselves stop at 4 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// An image's configuration.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Indexes within indexes.
pub const INDEX_DEPTH_MAX: usize = 4;
/// Documents read to find one platform's manifest.
pub const INDEX_DOCUMENTS_MAX: usize = 32;
/// An answer to a token request.
pub const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// A docker-style credentials file.
pub const CREDENTIALS_BYTES_MAX: u64 = 1 << 20;
