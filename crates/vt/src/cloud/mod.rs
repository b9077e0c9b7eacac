//! The whole cloud in one process.

/// Refuses: this build has no cloud in it.
pub async fn up(_args: crate::cli::up::UpArgs) -> anyhow::Result<()> {
    anyhow::bail!("this build of vt cannot run a cloud")
}
