//! What has to be true before anything starts. Every finding names its fix; nothing has changed yet.

use model::{Code, Error};

/// Programs that the cloud runs, with the Debian package each comes in.
pub const PROGRAMS: &[(&str, &str)] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("nft", "nftables"), ("mkfs.ext4", "e2fsprogs")];

/// Refuses to start where it could not work.
pub fn check() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        let error =
            Error::new(Code::PreconditionFailed, "`vt up` needs root: it makes network devices, cgroups and jails");
        return Err(error.hint("sudo vt up").reason("not_root"));
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !installed(program)).collect();
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        let error = Error::new(Code::PreconditionFailed, format!("missing on this machine: {}", programs.join(", ")));
        return Err(error.hint(format!("apt-get install {}", packages.join(" "))).reason("program_missing"));
    }
    Ok(())
}

/// True when the program is in a folder of PATH, or where Debian keeps programs for root.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(Into::into));
    folders.iter().any(|folder| folder.join(program).is_file())
}
