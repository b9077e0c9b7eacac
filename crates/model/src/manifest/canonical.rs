//! The one text of a manifest: fixed order, one blank line between parts, defaults left out.
//!
//! Resources are always written in full: they are what people look for first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{
    Env, Health, HealthType, Manifest, Mount, PortRef, Process, PullPolicy, Restart, RestartPolicy, Scaling, Volume,
};

pub(super) fn text(manifest: &Manifest) -> String {
    let mut out = Out::default();
    out.pair("schema_version", &quoted(&manifest.schema_version));
    if manifest.app.name.is_some() || !manifest.app.description.is_empty() {
        out.head("[app]");
        out.optional("name", manifest.app.name.as_deref());
        out.optional("description", Some(manifest.app.description.as_str()).filter(|text| !text.is_empty()));
    }
    if let Some(image) = &manifest.image {
        out.head("[image]");
        out.pair("ref", &quoted(&image.reference));
        if image.pull_policy == PullPolicy::Always {
            out.pair("pull_policy", "\"always\"");
        }
    }
    env(&mut out, &manifest.env);
    for (name, process) in &manifest.processes {
        self::process(&mut out, name, process);
    }
    manifest.volumes.iter().for_each(|volume| self::volume(&mut out, volume));
    out.text
}

fn env(out: &mut Out, env: &Env) {
    let default = Env::default();
    if *env == default {
        return;
    }
    out.head("[env]");
    out.vars(&env.vars);
    out.optional("workdir", env.workdir.as_deref());
    out.optional("user", env.user.as_deref());
    if !env.prestart.is_empty() {
        out.words("prestart", &env.prestart);
    }
    out.number("prestart_timeout_seconds", env.prestart_timeout_seconds, default.prestart_timeout_seconds);
}

fn process(out: &mut Out, name: &str, process: &Process) {
    out.head(&format!("[processes.{name}]"));
    if !process.command.is_empty() {
        out.words("command", &process.command);
    }
    out.optional("workdir", process.workdir.as_deref());
    out.optional("user", process.user.as_deref());
    out.vars(&process.vars);
    if let Some(prestart) = &process.prestart {
        out.words("prestart", prestart);
    }
    let resources = &process.resources;
    let written =
        format!("{{ cpu = {:?}, memory = \"{}\", disk = \"{}\" }}", resources.cpu, resources.memory, resources.disk);
    out.pair("resources", &written);
    if process.scaling != Scaling::default() {
        let (now, usual) = (process.scaling, Scaling::default());
        let times = [
            ("idle_seconds", now.idle_seconds, usual.idle_seconds),
            ("warm_seconds", now.warm_seconds, usual.warm_seconds),
        ];
        let mut pairs = vec![format!("min = {}", now.min), format!("max = {}", now.max)];
        pairs.extend(times.iter().filter(|(_, now, usual)| now != usual).map(|(key, now, _)| format!("{key} = {now}")));
        out.pair("scaling", &format!("{{ {} }}", pairs.join(", ")));
    }
    restart(out, process.restart);
    if process.secrets.required {
        out.pair("secrets", "{ required = true }");
    }
    for port in &process.ports {
        out.head(&format!("[[processes.{name}.ports]]"));
        out.pair("name", &quoted(&port.name));
        out.pair("internal", &port.internal.to_string());
    }
    if let Some(health) = &process.health {
        out.head(&format!("[processes.{name}.health]"));
        self::health(out, health);
    }
    for mount in &process.mounts {
        out.head(&format!("[[processes.{name}.mounts]]"));
        self::mount(out, mount);
    }
}

fn restart(out: &mut Out, restart: Restart) {
    let default = Restart::default();
    if restart == default {
        return;
    }
    let policy = match restart.policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    };
    let written = format!(
        "{{ policy = \"{policy}\", max_retries = {}, backoff_seconds = {} }}",
        restart.max_retries, restart.backoff_seconds
    );
    out.pair("restart", &written);
}

fn health(out: &mut Out, health: &Health) {
    out.pair("type", if health.kind == HealthType::Http { "\"http\"" } else { "\"tcp\"" });
    match &health.port {
        PortRef::Number(number) => out.pair("port", &number.to_string()),
        PortRef::Name(name) => out.pair("port", &quoted(name)),
    }
    out.optional("path", health.path.as_deref());
    out.number("interval_seconds", health.interval_seconds, 10);
    out.number("timeout_seconds", health.timeout_seconds, 2);
    out.number("grace_period_seconds", health.grace_period_seconds, 10);
    out.number("success_threshold", health.success_threshold, 1);
    out.number("failure_threshold", health.failure_threshold, 3);
}

fn mount(out: &mut Out, mount: &Mount) {
    out.pair("volume", &quoted(&mount.volume));
    out.pair("path", &quoted(&mount.path));
    if mount.read_only {
        out.pair("read_only", "true");
    }
}

fn volume(out: &mut Out, volume: &Volume) {
    out.head("[[volumes]]");
    out.pair("name", &quoted(&volume.name));
    out.pair("size", &quoted(&volume.size.to_string()));
    if !volume.backup_enabled {
        out.pair("backup_enabled", "false");
    }
}

#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn head(&mut self, head: &str) {
        let _ = write!(self.text, "\n{head}\n");
    }

    fn pair(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.text, "{key} = {value}");
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.pair(key, &quoted(value));
        }
    }

    fn number(&mut self, key: &str, value: u32, default: u32) {
        if value != default {
            self.pair(key, &value.to_string());
        }
    }

    fn words(&mut self, key: &str, words: &[String]) {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        self.pair(key, &format!("[{}]", words.join(", ")));
    }

    fn vars(&mut self, vars: &BTreeMap<String, String>) {
        if vars.is_empty() {
            return;
        }
        let vars: Vec<String> = vars.iter().map(|(key, value)| format!("{key} = {}", quoted(value))).collect();
        self.pair("vars", &format!("{{ {} }}", vars.join(", ")));
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
