//! placeholder
use anyhow::Result;
pub fn path(_json: bool, _write: bool) -> Result<()> {
    Ok(())
}
