//! The manifest's limits.

use std::collections::{BTreeMap, BTreeSet};

use super::{Health, HealthType, Manifest, Mount, PortRef, Process, SCHEMA_VERSION};
use crate::unit::Size;
use crate::{Error, name};

const PROCESSES_MAX: usize = 32;
const PROCESS_NAME_CHARS_MAX: usize = 32;
const DESCRIPTION_CHARS_MAX: usize = 256;
const REFERENCE_CHARS_MAX: usize = 1024;
const WORDS_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 32 << 10;
const VARS_MAX: usize = 256;
const VAR_KEY_CHARS_MAX: usize = 128;
const VAR_BYTES_MAX: usize = 32 << 10;
const PORTS_MAX: usize = 32;
const MOUNTS_MAX: usize = 16;
const VOLUMES_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 1024;
const USER_CHARS_MAX: usize = 128;
const INSTANCES_MAX: u32 = 100;
const CPU_MAX: f64 = 64.0;
const MEMORY_MIN: Size = Size::mib(64);
const MEMORY_MAX: Size = Size::gib(1024);
const DISK_MIN: Size = Size::gib(1);
const DISK_MAX: Size = Size::gib(65536);
const SECONDS_MAX: u32 = 3600;
const REST_SECONDS_MAX: u32 = 86_400;
const BACKOFF_SECONDS_MAX: u32 = 300;
const COUNT_MAX: u32 = 100;

/// Where nothing may be mounted: the system of the guest needs these.
const TAKEN: &[&str] =
    &["/proc", "/sys", "/dev", "/run", "/tmp", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc", "/boot"];

pub(super) fn manifest(manifest: &Manifest) -> Result<(), Error> {
    if manifest.schema_version != SCHEMA_VERSION {
        return Err(
            Error::invalid("schema_version", "`schema_version` must be \"v1\"").hint("write:  schema_version = \"v1\"")
        );
    }
    if let Some(text) = &manifest.app.name {
        name::check("app.name", text)?;
    }
    text("app.description", &manifest.app.description, DESCRIPTION_CHARS_MAX)?;
    if let Some(image) = &manifest.image {
        reference(&image.reference)?;
    }
    vars("env.vars", &manifest.env.vars)?;
    place("env", manifest.env.workdir.as_deref(), manifest.env.user.as_deref())?;
    words("env.prestart", &manifest.env.prestart)?;
    between("env.prestart_timeout_seconds", manifest.env.prestart_timeout_seconds, 1, SECONDS_MAX)?;
    if manifest.processes.is_empty() {
        return Err(Error::invalid("processes", "the manifest has no process")
            .hint("write:  [processes.web]  resources = { memory = \"512Mi\" }"));
    }
    count("processes", manifest.processes.len(), PROCESSES_MAX)?;
    volumes(manifest)?;
    for (name, process) in &manifest.processes {
        process_name(name)?;
        self::process(&format!("processes.{name}"), process)?;
    }
    mounts(manifest)
}

fn process_name(text: &str) -> Result<(), Error> {
    let field = format!("processes.{text}");
    name::check(&field, text)?;
    if text.len() > PROCESS_NAME_CHARS_MAX {
        return Err(Error::invalid(
            field,
            format!("`{text}` is too long for a process: at most {PROCESS_NAME_CHARS_MAX} characters"),
        ));
    }
    Ok(())
}

fn process(path: &str, process: &Process) -> Result<(), Error> {
    words(&format!("{path}.command"), &process.command)?;
    if process.command.first().is_some_and(String::is_empty) {
        return Err(Error::invalid(format!("{path}.command[0]"), "the program of a command cannot be empty"));
    }
    place(path, process.workdir.as_deref(), process.user.as_deref())?;
    vars(&format!("{path}.vars"), &process.vars)?;
    words(&format!("{path}.prestart"), process.prestart.as_deref().unwrap_or_default())?;
    resources(path, process)?;
    between(format!("{path}.restart.max_retries"), process.restart.max_retries, 0, COUNT_MAX)?;
    between(format!("{path}.restart.backoff_seconds"), process.restart.backoff_seconds, 1, BACKOFF_SECONDS_MAX)?;
    let scaling = process.scaling;
    between(format!("{path}.scaling.min"), scaling.min, 0, INSTANCES_MAX)?;
    between(format!("{path}.scaling.max"), scaling.max, 1, INSTANCES_MAX)?;
    between(format!("{path}.scaling.idle_seconds"), scaling.idle_seconds, 1, REST_SECONDS_MAX)?;
    between(format!("{path}.scaling.warm_seconds"), scaling.warm_seconds, 1, REST_SECONDS_MAX)?;
    if scaling.max < scaling.min {
        let message = format!("`{path}.scaling` has max {} below min {}", scaling.max, scaling.min);
        return Err(Error::invalid(format!("{path}.scaling.max"), message)
            .hint(format!("write:  scaling = {{ min = {}, max = {} }}", scaling.min, scaling.min)));
    }
    ports(path, process)?;
    match &process.health {
        Some(health) => self::health(&format!("{path}.health"), process, health),
        None => Ok(()),
    }
}

fn resources(path: &str, process: &Process) -> Result<(), Error> {
    let resources = &process.resources;
    if !(resources.cpu > 0.0 && resources.cpu <= CPU_MAX) {
        let message = format!("`{path}.resources.cpu` must be above 0 and at most {CPU_MAX}, and is {}", resources.cpu);
        return Err(Error::invalid(format!("{path}.resources.cpu"), message).hint("write:  cpu = 1.0"));
    }
    amount(&format!("{path}.resources"), "memory", resources.memory, MEMORY_MIN, MEMORY_MAX)?;
    amount(&format!("{path}.resources"), "disk", resources.disk, DISK_MIN, DISK_MAX)
}

fn amount(path: &str, key: &str, size: Size, min: Size, max: Size) -> Result<(), Error> {
    if size < min || size > max {
        let message = format!("`{path}.{key}` must be {min} to {max}, and is {size}");
        return Err(Error::invalid(format!("{path}.{key}"), message)
            .hint(format!("write:  {key} = \"{}\"", size.clamp(min, max))));
    }
    Ok(())
}

fn ports(path: &str, process: &Process) -> Result<(), Error> {
    count(&format!("{path}.ports"), process.ports.len(), PORTS_MAX)?;
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in process.ports.iter().enumerate() {
        let field = format!("{path}.ports[{at}]");
        name::check(&format!("{field}.name"), &port.name)?;
        if port.internal == 0 {
            let message = format!("`{field}.internal` must be 1 to 65535, and is 0");
            return Err(
                Error::invalid(format!("{field}.internal"), message).hint("write the port that the process listens on")
            );
        }
        if !names.insert(&port.name) {
            return Err(Error::invalid(format!("{field}.name"), format!("two ports are named `{}`", port.name)));
        }
        if !numbers.insert(port.internal) {
            return Err(Error::invalid(format!("{field}.internal"), format!("port {} is listed twice", port.internal)));
        }
    }
    Ok(())
}

fn health(path: &str, process: &Process, health: &Health) -> Result<(), Error> {
    if process.port(&health.port).is_none() {
        let asked = match &health.port {
            PortRef::Number(number) => number.to_string(),
            PortRef::Name(name) => format!("`{name}`"),
        };
        let known: Vec<String> =
            process.ports.iter().map(|port| format!("`{}` ({})", port.name, port.internal)).collect();
        let error = Error::invalid(
            format!("{path}.port"),
            format!("the health check asks port {asked}, which the process does not have"),
        );
        return Err(if known.is_empty() {
            let around = path.strip_suffix(".health").unwrap_or(path);
            error.hint(format!("write:  [[{around}.ports]]  internal = 8080"))
        } else {
            error.hint(format!("its ports are {}", known.join(", ")))
        });
    }
    match (&health.path, health.kind) {
        (Some(_), HealthType::Tcp) => {
            return Err(Error::invalid(format!("{path}.path"), "a tcp check has no path")
                .hint("leave `path` out, or write:  type = \"http\""));
        }
        (Some(text), HealthType::Http) => {
            let fine = text.starts_with('/')
                && text.len() <= PATH_BYTES_MAX
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            if !fine {
                return Err(Error::invalid(
                    format!("{path}.path"),
                    "the path of a health check begins with `/` and holds no spaces",
                )
                .hint("write:  path = \"/healthz\""));
            }
        }
        (None, _) => {}
    }
    between(format!("{path}.interval_seconds"), health.interval_seconds, 1, SECONDS_MAX)?;
    between(format!("{path}.timeout_seconds"), health.timeout_seconds, 1, SECONDS_MAX)?;
    between(format!("{path}.grace_period_seconds"), health.grace_period_seconds, 0, SECONDS_MAX)?;
    between(format!("{path}.success_threshold"), health.success_threshold, 1, COUNT_MAX)?;
    between(format!("{path}.failure_threshold"), health.failure_threshold, 1, COUNT_MAX)
}

fn volumes(manifest: &Manifest) -> Result<(), Error> {
    count("volumes", manifest.volumes.len(), VOLUMES_MAX)?;
    let mut names = BTreeSet::new();
    for (at, volume) in manifest.volumes.iter().enumerate() {
        name::check(&format!("volumes[{at}].name"), &volume.name)?;
        amount(&format!("volumes[{at}]"), "size", volume.size, DISK_MIN, DISK_MAX)?;
        if !names.insert(&volume.name) {
            return Err(Error::invalid(
                format!("volumes[{at}].name"),
                format!("two volumes are named `{}`", volume.name),
            ));
        }
    }
    Ok(())
}

fn mounts(manifest: &Manifest) -> Result<(), Error> {
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, process) in &manifest.processes {
        let path = format!("processes.{name}");
        count(&format!("{path}.mounts"), process.mounts.len(), MOUNTS_MAX)?;
        if !process.mounts.is_empty() && process.scaling.max > 1 {
            let message = format!(
                "process `{name}` has a volume and so can have one instance, and asks for up to {}",
                process.scaling.max
            );
            return Err(
                Error::invalid(format!("{path}.scaling.max"), message).hint("write:  scaling = { min = 1, max = 1 }")
            );
        }
        let mut paths = BTreeSet::new();
        for (at, mount) in process.mounts.iter().enumerate() {
            let field = format!("{path}.mounts[{at}]");
            mount_path(&field, mount)?;
            if !paths.insert(mount.path.trim_end_matches('/')) {
                return Err(Error::invalid(
                    format!("{field}.path"),
                    format!("two volumes are mounted at {}", mount.path),
                ));
            }
            if !manifest.volumes.iter().any(|volume| volume.name == mount.volume) {
                let near = super::nearest(&mount.volume, manifest.volumes.iter().map(|volume| volume.name.as_str()));
                let error = Error::invalid(format!("{field}.volume"), format!("there is no volume `{}`", mount.volume));
                return Err(match near {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint(format!(
                        "write:  [[volumes]]  name = \"{}\"  size = \"1Gi\"",
                        name::nearest(&mount.volume)
                    )),
                });
            }
            if let Some(other) = holders.insert(&mount.volume, name) {
                let message = format!("volume `{}` is mounted twice, by `{other}` and `{name}`", mount.volume);
                return Err(
                    Error::invalid(format!("{field}.volume"), message).hint("one process holds a volume at a time")
                );
            }
        }
    }
    Ok(())
}

fn mount_path(field: &str, mount: &Mount) -> Result<(), Error> {
    absolute(&format!("{field}.path"), &mount.path)?;
    let path = mount.path.trim_end_matches('/');
    let taken = path.is_empty() || TAKEN.iter().any(|taken| path == *taken || path.starts_with(&format!("{taken}/")));
    if taken {
        let message = format!("nothing can be mounted at {}: the system needs it", mount.path);
        return Err(Error::invalid(format!("{field}.path"), message).hint("write:  path = \"/data\""));
    }
    Ok(())
}

fn place(path: &str, workdir: Option<&str>, user: Option<&str>) -> Result<(), Error> {
    if let Some(workdir) = workdir {
        absolute(&format!("{path}.workdir"), workdir)?;
    }
    let Some(user) = user else { return Ok(()) };
    let fine = !user.is_empty()
        && user.len() <= USER_CHARS_MAX
        && user.matches(':').count() <= 1
        && user.split(':').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte))
        });
    if fine {
        return Ok(());
    }
    Err(Error::invalid(format!("{path}.user"), format!("`{path}.user` is not a user")).hint(
        "write a name or a number, with a group after `:` where needed:  user = \"app\"  or  user = \"1000:1000\"",
    ))
}

fn absolute(field: &str, path: &str) -> Result<(), Error> {
    let fine = path.starts_with('/')
        && path.len() <= PATH_BYTES_MAX
        && !path.contains('\0')
        && path.split('/').all(|part| part != ".." && part != ".");
    if fine {
        return Ok(());
    }
    Err(Error::invalid(field, format!("`{field}` must be an absolute path without `.` and `..`"))
        .hint("write a path such as \"/app\""))
}

fn vars(path: &str, vars: &BTreeMap<String, String>) -> Result<(), Error> {
    count(path, vars.len(), VARS_MAX)?;
    let mut total = 0;
    for (key, value) in vars {
        let field = format!("{path}.{key}");
        let mut bytes = key.bytes();
        let fine = bytes.next().is_some_and(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            && key.len() <= VAR_KEY_CHARS_MAX;
        if !fine {
            let shown: String = key.chars().take(80).collect();
            let near: String = key
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .take(VAR_KEY_CHARS_MAX)
                .collect();
            let near = if near.is_empty() || near.starts_with(|c: char| c.is_ascii_digit()) {
                format!("_{near}")
            } else {
                near
            };
            return Err(Error::invalid(
                field,
                format!("`{shown}` is not the name of a variable: use A-Z, 0-9 and `_`, not beginning with a digit"),
            )
            .hint(format!("the nearest right form is `{near}`")));
        }
        if value.contains('\0') {
            return Err(Error::invalid(field, format!("the value of `{key}` holds a zero byte")));
        }
        total += key.len() + value.len();
        if total > VAR_BYTES_MAX {
            return Err(Error::invalid(field, format!("the variables are larger than {VAR_BYTES_MAX} bytes together"))
                .hint("put large content into the image or into a secret"));
        }
    }
    Ok(())
}

fn words(path: &str, words: &[String]) -> Result<(), Error> {
    count(path, words.len(), WORDS_MAX)?;
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid(path, format!("`{path}` holds a zero byte")));
    }
    if words.iter().map(String::len).sum::<usize>() > WORD_BYTES_MAX {
        return Err(Error::invalid(path, format!("`{path}` is longer than {WORD_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn reference(reference: &str) -> Result<(), Error> {
    let fine = !reference.is_empty()
        && reference.len() <= REFERENCE_CHARS_MAX
        && !reference.contains(char::is_whitespace)
        && !reference.contains(char::is_control);
    if fine {
        return Ok(());
    }
    Err(Error::invalid("image.ref", "`image.ref` is not the name of an image")
        .hint("write `registry.example/shop:1.4`, `oci:DIR:TAG`, `oci-archive:FILE` or `docker-archive:FILE`"))
}

fn text(field: &str, text: &str, chars_max: usize) -> Result<(), Error> {
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(Error::invalid(field, format!("`{field}` has {chars} characters; at most {chars_max} are kept")));
    }
    Ok(())
}

fn between(field: impl Into<String>, number: u32, min: u32, max: u32) -> Result<(), Error> {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    let field = field.into();
    let key = field.rsplit('.').next().unwrap_or("").to_owned();
    let message = format!("`{field}` must be {min} to {max}, and is {number}");
    Err(Error::invalid(field, message).hint(format!("write:  {key} = {}", number.clamp(min, max))))
}

fn count(field: &str, count: usize, max: usize) -> Result<(), Error> {
    if count > max {
        return Err(Error::invalid(field, format!("`{field}` has {count} entries; at most {max} are allowed")));
    }
    Ok(())
}
