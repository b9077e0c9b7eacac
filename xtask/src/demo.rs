//! placeholder
use anyhow::Result;
pub fn demo(_rest: &[&str]) -> Result<()> { Ok(()) }
