//! placeholder
use anyhow::Result;
pub fn demo(_once: bool) -> Result<()> {
    Ok(())
}
