//! What every command has at hand.

use crate::client::Api;
use crate::config::Settings;
use crate::failure::Failure;
use crate::output::Out;

/// One run of the program.
#[derive(Debug)]
pub struct Session {
    pub settings: Settings,
    pub out: Out,
}

impl Session {
    /// The API of the cloud that the settings name.
    pub fn api(&self) -> Result<Api, Failure> {
        Api::open(&self.settings)
    }

    /// The name of the env, as it is said in sentences: `shop/prod`.
    pub fn place(&self) -> String {
        format!("{}/{}", self.settings.get("app").unwrap_or("?"), self.settings.get("env").unwrap_or("prod"))
    }
}
