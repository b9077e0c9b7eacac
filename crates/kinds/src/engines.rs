//! The engines of this machine, as kinds use them.

use std::sync::Arc;

use iam::Sealer;

use crate::images::Images;
use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    pub machines: Arc<dyn plasmavmc::Engine>,
    pub network: novanet::Handle,
    pub ingress: fiberlb::Handle,
    pub images: Images,
    pub sealer: Arc<Sealer>,
    pub settings: Settings,
    /// The first user id of machines; each has its own.
    pub uid_base: u32,
}
