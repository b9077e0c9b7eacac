//! placeholder
use anyhow::Result;
pub fn path(_json: bool) -> Result<()> { Ok(()) }
