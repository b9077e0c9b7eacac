//! Does a guest really run under KVM here?
//!
//! `/dev/kvm` that opens proves little: inside of some virtual machines it runs toy guests and no stock kernel. So the
//! kernel and PID 1 that all machines use are booted once, in the same jail, and have to report on their channel. The
//! answer is kept for this QEMU, this kernel, and this boot of the host.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use world::file;

use crate::Error;
use crate::context::Context;
use crate::kernel::{Kernel, Progress, Step};
use crate::launch::{self, Launch, Memory, Origin};
use crate::qemu::Accelerator;
use crate::record;

/// A boot under KVM takes less than one second.
const DEADLINE: Duration = Duration::from_secs(10);
const MEMORY_BYTES: u64 = 128 << 20;
/// The name of its folder and cgroup; no machine's id has a dot.
const NAME: &str = ".probe";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    qemu: String,
    kernel: String,
    host_boot_id: String,
    works: bool,
    why: String,
}

/// The accelerator to use, and why.
pub(crate) async fn choose(
    context: &Context,
    kernel: &Kernel,
    progress: Progress<'_>,
) -> Result<(Accelerator, String), Error> {
    if let Some(accelerator) = context.config.accelerator {
        return Ok((accelerator, "the configuration says so".to_owned()));
    }
    let device = Path::new("/dev/kvm");
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return Ok((Accelerator::Tcg, format!("software emulation: /dev/kvm cannot be opened ({error})")));
    }
    let path = context.config.state_dir.join("kvm.json");
    let asked = |works, why| Answer {
        qemu: context.program.version.clone(),
        kernel: kernel.id(),
        host_boot_id: record::host_boot_id(),
        works,
        why,
    };
    let known =
        file::read_optional(&path).ok().flatten().and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).ok());
    let known = known.filter(|answer| *answer == asked(answer.works, answer.why.clone()));
    let answer = match known {
        Some(answer) => answer,
        None => {
            progress(Step::Probe { seconds_max: DEADLINE.as_secs() });
            let answer = match boot(context, kernel).await {
                Ok(()) => asked(true, "a guest reached its PID 1 under KVM".to_owned()),
                Err(why) => asked(false, format!("software emulation: /dev/kvm is there, but {why}")),
            };
            let bytes = serde_json::to_vec_pretty(&answer).unwrap_or_default();
            file::write_atomic(&path, &bytes, 0o600).map_err(|source| Error::StateFolder { path, source })?;
            answer
        }
    };
    Ok((if answer.works { Accelerator::Kvm } else { Accelerator::Tcg }, answer.why))
}

/// Boots a machine without disks or network under KVM until its PID 1 says the first byte.
async fn boot(context: &Context, kernel: &Kernel) -> Result<(), String> {
    let folder = context.config.state_dir.join(NAME);
    let prepared =
        file::create_folder(&folder, 0o700).and_then(|()| file::create_folder(&context.mount_point(), 0o700));
    prepared.map_err(|error| error.to_string())?;
    let order = Launch {
        id: NAME,
        mark: &context.mark(NAME),
        // Below all machines' own.
        uid: context.config.uid_base - 1,
        folder: &folder,
        mount_point: &context.mount_point(),
        hierarchy: &context.hierarchy,
        program: &context.program,
        origin: Origin::Kernel(kernel),
        accelerator: Accelerator::Kvm,
        vcpus: 1,
        memory_bytes: MEMORY_BYTES,
        memory: Memory::Own,
        cpu_weight: 100,
        root: None,
        scratch: None,
        tap: None,
    };
    let launched = launch::launch(order, |_| Ok(()), || Ok(())).await.map_err(|error| error.to_string())?;
    let mut guest = launched.guest;
    let said = async {
        let hello = model::guest::ToGuest::Hello(model::guest::HelloHost {
            nonce: world::random::hex(16),
            protocol_min: model::guest::PROTOCOL_MIN,
            protocol_max: model::guest::PROTOCOL_MAX,
        });
        let mut bytes = Vec::new();
        model::guest::preamble(&mut bytes);
        hello.encode(&mut bytes).map_err(|error| error.to_string())?;
        tokio::io::AsyncWriteExt::write_all(&mut guest, &bytes).await.map_err(|error| error.to_string())?;
        guest.read_u8().await.map(drop).map_err(|error| error.to_string())
    };
    let result = tokio::select! {
        said = said => said,
        () = launched.process.ended() => Err("its probe ended before its PID 1".to_owned()),
        () = tokio::time::sleep(DEADLINE) => Err(format!("no guest reached its PID 1 within {} s", DEADLINE.as_secs())),
    };
    launched.process.kill();
    launched.process.ended().await;
    let mut child = launched.child;
    let _ = child.wait();
    let removed = launched.group.remove().await;
    let _ = std::fs::remove_dir_all(&folder);
    result.and(removed.map_err(|error| error.to_string()))
}
