use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use image::{Credentials, ImageConfig, Limits, Platform, Reference};
use model::manifest::{
    self, App, Env, Health, HealthType, Image, Manifest, Port, PortRef, Process, Protocol, PullPolicy,
};
use model::unit::Size;
use serde_json::json;

use super::session::Session;
use crate::failure::{Failure, Outcome};

/// Ports that are almost always HTTP.
const HTTP_PORTS: [u16; 12] = [80, 3000, 4000, 5000, 5173, 8000, 8008, 8080, 8081, 8088, 8888, 9000];
/// The first guess. A program that needs more is killed for memory, and is told so by name.
const MEMORY: Size = Size::mib(256);
const PROCESS: &str = "web";

/// Writes a vt.toml for an image, from the image's own settings
///
/// Ports come from what the image exposes; a port gets a health check, and so the app a URL. Memory is a guess that
/// you should look at.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt launch --image oci:./image:latest
  vt launch --image registry.example/shop:1.4 -a shop
  vt launch --image nginx:1.27 --port 80 --force")]
pub struct LaunchArgs {
    /// The image: a registry's, or oci:DIR:TAG, oci-archive:FILE, docker-archive:FILE
    #[arg(long, value_name = "REF")]
    image: String,
    /// The port that the app listens on, where the image does not say
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Memory of an instance
    #[arg(long, value_name = "SIZE", default_value_t = MEMORY)]
    memory: Size,
    /// File with the registry's credentials, as docker writes it
    #[arg(long, value_name = "FILE")]
    credentials: Option<std::path::PathBuf>,
    /// Replace the manifest that is here
    #[arg(long)]
    force: bool,
}

pub async fn run(session: &Session, args: &LaunchArgs) -> Outcome {
    let path = session.settings.get("manifest").unwrap_or(manifest::FILE_NAME);
    if Path::new(path).exists() && !args.force {
        return Err(Failure::new(model::Code::Conflict, format!("{path} is here already"))
            .hint("vt deploy   uses it; vt launch --force   replaces it"));
    }
    let reference: Reference = args.image.parse()?;
    let credentials = match &args.credentials {
        Some(path) => Credentials::read(path)?,
        None => Credentials::default(),
    };
    let source = image::open(&reference, &credentials).await?;
    let resolved = image::resolve(&*source, Platform::host(), &Limits::default()).await?;
    let name = match session.settings.get("app").filter(|_| session.settings.explicit("app")) {
        Some(name) => name.to_owned(),
        None => guess_name(&reference),
    };
    let made = guess(&name, &args.image, &resolved.config, args.port, args.memory);
    made.validate()?;
    let written = render(&made, &resolved.config);
    // Comments must not change what is read.
    debug_assert_eq!(manifest::parse(&written).ok().as_ref(), Some(&made));
    world::file::write_atomic(Path::new(path), written.as_bytes(), 0o644)
        .map_err(|error| Failure::new(model::Code::Failed, format!("{path} cannot be written: {error}")))?;
    let ports: Vec<u16> = made.processes[PROCESS].ports.iter().map(|port| port.internal).collect();
    let answer = json!({ "manifest": path, "app": name, "image": args.image, "digest": resolved.digest, "ports": ports, "next": ["vt deploy"] });
    session.out.value(&answer, || {
        let mut text = format!("{path} written for app {name}\n");
        if ports.is_empty() {
            text += "the image exposes no port, so the app gets no URL; vt launch --port PORT --force   adds one\n";
        }
        text + "next: look at its memory, then  vt deploy\n"
    })?;
    Ok(0)
}

/// The folder's name; the image's where the folder has none that fits.
fn guess_name(reference: &Reference) -> String {
    let image = match reference {
        Reference::Registry(name) => name.repository.rsplit('/').next().unwrap_or("app").to_owned(),
        _ => "app".to_owned(),
    };
    let folder = std::env::current_dir().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    match folder {
        Some(folder) if folder.chars().any(|c| c.is_ascii_alphabetic()) => model::name::nearest(&folder),
        _ => model::name::nearest(&image),
    }
}

fn guess(name: &str, reference: &str, config: &ImageConfig, port: Option<u16>, memory: Size) -> Manifest {
    let mut numbers: Vec<u16> = port.into_iter().collect();
    numbers
        .extend(config.exposed_ports.iter().filter(|exposed| exposed.protocol == "tcp").map(|exposed| exposed.number));
    numbers.dedup();
    let name_of = |number: u16| if HTTP_PORTS.contains(&number) { "http".to_owned() } else { format!("p{number}") };
    let mut ports: Vec<Port> = Vec::new();
    for number in numbers {
        if ports.iter().any(|port| port.internal == number) {
            continue;
        }
        let name =
            if ports.iter().any(|port| port.name == name_of(number)) { format!("p{number}") } else { name_of(number) };
        ports.push(Port { name, internal: number, protocol: Protocol::Tcp });
    }
    let health = ports.first().map(|port| {
        let http = HTTP_PORTS.contains(&port.internal);
        Health {
            kind: if http { HealthType::Http } else { HealthType::Tcp },
            port: PortRef::Name(port.name.clone()),
            path: http.then(|| "/".to_owned()),
            interval_seconds: 10,
            timeout_seconds: 2,
            grace_period_seconds: 10,
            success_threshold: 1,
            failure_threshold: 3,
        }
    });
    let process = Process {
        command: Vec::new(),
        workdir: None,
        user: None,
        vars: BTreeMap::new(),
        prestart: None,
        resources: manifest::Resources { cpu: 1.0, memory, disk: Size::gib(4) },
        scaling: manifest::Scaling::default(),
        restart: manifest::Restart::default(),
        secrets: manifest::SecretsNeed::default(),
        ports,
        health,
        mounts: Vec::new(),
    };
    Manifest {
        schema_version: manifest::SCHEMA_VERSION.to_owned(),
        app: App { name: Some(name.to_owned()), description: String::new() },
        image: Some(Image { reference: reference.to_owned(), pull_policy: PullPolicy::default() }),
        env: Env::default(),
        processes: BTreeMap::from([(PROCESS.to_owned(), process)]),
        volumes: Vec::new(),
    }
}

/// The manifest's text with what the image says by itself as a comment.
fn render(made: &Manifest, config: &ImageConfig) -> String {
    let words: Vec<String> = config.entrypoint.iter().chain(&config.cmd).map(|word| format!("{word:?}")).collect();
    let comment = if words.is_empty() {
        "# The image names no command; write one here:  command = [\"/path/to/program\"]\n".to_owned()
    } else {
        format!("# The image's own command:  [{}]\n", words.join(", "))
    };
    let head = format!("[processes.{PROCESS}]\n");
    made.canonical().replacen(&head, &format!("{head}{comment}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ExposedPort;

    #[test]
    fn a_manifest_is_guessed_from_the_image() {
        let exposed = |number, protocol: &str| ExposedPort { number, protocol: protocol.to_owned() };
        let config = ImageConfig {
            entrypoint: vec!["/entry.sh".into()],
            cmd: vec!["nginx".into(), "-g".into(), "daemon \"off\";\n# [x]".into()],
            exposed_ports: vec![exposed(53, "udp"), exposed(80, "tcp"), exposed(443, "tcp"), exposed(8080, "tcp")],
            ..ImageConfig::default()
        };
        let made = guess("shop", "nginx:1.27", &config, None, MEMORY);
        let text = render(&made, &config);
        assert_eq!(manifest::parse(&text).unwrap(), made);
        insta::assert_snapshot!(text);
        let none = guess("shop", "x:1", &ImageConfig::default(), None, MEMORY);
        assert!(none.processes["web"].health.is_none());
        assert!(render(&none, &ImageConfig::default()).contains("names no command"));
    }
}
