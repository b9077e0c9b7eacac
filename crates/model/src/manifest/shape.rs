//! Which keys there are and what each holds. Refuses unknown keys, missing ones and wrong types, with the right form.

use super::nearest::nearest;
use super::tree::{Form, Node};
use crate::Error;
use crate::unit::Size;

/// What a value must be.
enum Shape {
    Text,
    Size,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    Number,
    Flag,
    Words,
    Choice(&'static [&'static str]),
    /// A port's name or number.
    Port,
    /// Any keys, each with a text.
    Vars,
    Table(&'static [Field]),
    /// Tables by a name of the writer's choice.
    Named(&'static [Field]),
    /// `[[key]]`.
    List(&'static [Field]),
}

struct Field {
    key: &'static str,
    shape: Shape,
    required: bool,
    /// How it looks when it is right.
    right: &'static str,
}

const fn may(key: &'static str, shape: Shape, right: &'static str) -> Field {
    Field { key, shape, required: false, right }
}

const fn must(key: &'static str, shape: Shape, right: &'static str) -> Field {
    Field { key, shape, required: true, right }
}

const SECONDS: Shape = Shape::Whole(0, u32::MAX as i64);

const ROOT: &[Field] = &[
    must("schema_version", Shape::Choice(&["v1"]), r#"schema_version = "v1""#),
    may("app", Shape::Table(APP), "[app]"),
    may("image", Shape::Table(IMAGE), "[image]"),
    may("env", Shape::Table(ENV), "[env]"),
    must("processes", Shape::Named(PROCESS), "[processes.web]\nresources = { memory = \"512Mi\" }"),
    may("volumes", Shape::List(VOLUME), "[[volumes]]"),
];

const APP: &[Field] =
    &[may("name", Shape::Text, r#"name = "shop""#), may("description", Shape::Text, r#"description = "the shop""#)];

const IMAGE: &[Field] = &[
    must("ref", Shape::Text, r#"ref = "registry.example/shop:1.4""#),
    may("pull_policy", Shape::Choice(&["if_not_present", "always"]), r#"pull_policy = "if_not_present""#),
];

const ENV: &[Field] = &[
    may("vars", Shape::Vars, r#"vars = { RUST_LOG = "info" }"#),
    may("workdir", Shape::Text, r#"workdir = "/app""#),
    may("user", Shape::Text, r#"user = "app""#),
    may("prestart", Shape::Words, r#"prestart = ["/app/migrate"]"#),
    may("prestart_timeout_seconds", SECONDS, "prestart_timeout_seconds = 30"),
];

const PROCESS: &[Field] = &[
    may("command", Shape::Words, r#"command = ["/app/server"]"#),
    may("workdir", Shape::Text, r#"workdir = "/app""#),
    may("user", Shape::Text, r#"user = "app""#),
    may("vars", Shape::Vars, r#"vars = { RUST_LOG = "info" }"#),
    may("prestart", Shape::Words, r#"prestart = ["/app/migrate"]"#),
    must("resources", Shape::Table(RESOURCES), r#"resources = { memory = "512Mi" }"#),
    may("scaling", Shape::Table(SCALING), "scaling = { min = 1, max = 3 }"),
    may("restart", Shape::Table(RESTART), r#"restart = { policy = "always" }"#),
    may("secrets", Shape::Table(SECRETS), "secrets = { required = true }"),
    may("ports", Shape::List(PORT), "[[processes.web.ports]]\ninternal = 8080"),
    may("health", Shape::Table(HEALTH), "[processes.web.health]\ntype = \"http\"\nport = 8080"),
    may("mounts", Shape::List(MOUNT), "[[processes.web.mounts]]\nvolume = \"data\"\npath = \"/data\""),
];

const RESOURCES: &[Field] = &[
    may("cpu", Shape::Number, "cpu = 1.0"),
    must("memory", Shape::Size, r#"memory = "512Mi""#),
    may("disk", Shape::Size, r#"disk = "4Gi""#),
];

const SCALING: &[Field] = &[
    may("min", Shape::Whole(0, u32::MAX as i64), "min = 1"),
    may("max", Shape::Whole(0, u32::MAX as i64), "max = 3"),
    may("idle_seconds", SECONDS, "idle_seconds = 300"),
    may("warm_seconds", SECONDS, "warm_seconds = 900"),
];

const RESTART: &[Field] = &[
    may("policy", Shape::Choice(&["always", "on-failure", "never"]), r#"policy = "always""#),
    may("max_retries", Shape::Whole(0, u32::MAX as i64), "max_retries = 3"),
    may("backoff_seconds", SECONDS, "backoff_seconds = 2"),
];

const SECRETS: &[Field] = &[may("required", Shape::Flag, "required = true")];

const PORT: &[Field] = &[
    may("name", Shape::Text, r#"name = "http""#),
    must("internal", Shape::Whole(1, u16::MAX as i64), "internal = 8080"),
    may("protocol", Shape::Choice(&["tcp"]), r#"protocol = "tcp""#),
];

const HEALTH: &[Field] = &[
    must("type", Shape::Choice(&["http", "tcp"]), r#"type = "http""#),
    must("port", Shape::Port, r#"port = "http""#),
    may("path", Shape::Text, r#"path = "/healthz""#),
    may("interval_seconds", SECONDS, "interval_seconds = 10"),
    may("timeout_seconds", SECONDS, "timeout_seconds = 2"),
    may("grace_period_seconds", SECONDS, "grace_period_seconds = 10"),
    may("success_threshold", Shape::Whole(0, u32::MAX as i64), "success_threshold = 1"),
    may("failure_threshold", Shape::Whole(0, u32::MAX as i64), "failure_threshold = 3"),
];

const MOUNT: &[Field] = &[
    must("volume", Shape::Text, r#"volume = "data""#),
    must("path", Shape::Text, r#"path = "/data""#),
    may("read_only", Shape::Flag, "read_only = false"),
];

const VOLUME: &[Field] = &[
    must("name", Shape::Text, r#"name = "data""#),
    must("size", Shape::Size, r#"size = "1Gi""#),
    may("filesystem", Shape::Choice(&["ext4"]), r#"filesystem = "ext4""#),
    may("backup_enabled", Shape::Flag, "backup_enabled = true"),
];

/// Keys that people of other systems look for, and where the thing is here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("autoscale", "this version keeps `scaling.min` instances; raise it, or run `vt scale`"),
    ("replicas", "write scaling = { min = 3 }"),
    ("environment", "write [env] with vars = { KEY = \"value\" }"),
    ("entrypoint", "write command = [\"/path\", \"argument\"]; it stands for entrypoint and command"),
    ("port", "write [[processes.NAME.ports]] with internal = 8080"),
    ("healthcheck", "write [processes.NAME.health]"),
    ("limits", "write resources = { memory = \"512Mi\" }"),
];

/// Checks a whole manifest.
pub(super) fn check(root: &Node) -> Result<(), Error> {
    if root.get("schema_version").is_none() && matches!(root.value, Form::Table(_)) {
        return Err(Error::invalid("schema_version", "the manifest does not say which version of the format it is in")
            .hint("begin the file with:  schema_version = \"v1\""));
    }
    table(root, "", ROOT)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn table(node: &Node, path: &str, fields: &[Field]) -> Result<(), Error> {
    let Form::Table(entries) = &node.value else {
        let what = if path.is_empty() { "the manifest" } else { path };
        return Err(Error::invalid(path, format!("`{what}` must be a table, and is {}", node.noun())));
    };
    for (key, value) in entries {
        let path = join(path, key);
        match fields.iter().find(|field| field.key == key) {
            Some(field) => one(value, &path, field)?,
            None => return Err(unknown(&path, key, fields)),
        }
    }
    match fields.iter().find(|field| field.required && node.get(field.key).is_none()) {
        Some(field) => Err(missing(path, field)),
        None => Ok(()),
    }
}

fn unknown(path: &str, key: &str, fields: &[Field]) -> Error {
    let shown: String = key.chars().take(80).collect();
    let around = path.strip_suffix(key).unwrap_or("").trim_end_matches('.');
    let place = if around.is_empty() { "a manifest".to_owned() } else { format!("`{around}`") };
    let error = Error::invalid(path, format!("`{shown}` is not a key of {place}"));
    let keys: Vec<&str> = fields.iter().map(|field| field.key).collect();
    if let Some(near) = nearest(key, keys.iter().copied()) {
        let right = fields.iter().find(|field| field.key == near).map_or("", |field| field.right);
        return error.hint(format!("did you mean `{near}`?  {}", one_line(right)));
    }
    match ELSEWHERE.iter().find(|(word, _)| *word == key) {
        Some((_, hint)) => error.hint(*hint),
        None => error.hint(format!("the keys here are {}", keys.join(", "))),
    }
}

fn one_line(right: &str) -> String {
    right.replace('\n', "  ")
}

fn missing(path: &str, field: &Field) -> Error {
    let full = join(path, field.key);
    // The memory of a process is the one number that nobody can guess for its owner.
    if field.key == "resources" || field.key == "memory" {
        let process = path.strip_suffix(".resources").unwrap_or(path);
        let name = process.strip_prefix("processes.").unwrap_or(process);
        return Error::invalid(
            format!("{process}.resources.memory"),
            format!("process `{name}` does not say how much memory it needs"),
        )
        .why("memory is a hard limit of the machine it runs in, so there is no default")
        .hint(format!("write under [{process}]:  resources = {{ memory = \"512Mi\" }}"));
    }
    let place = if path.is_empty() { "the manifest".to_owned() } else { format!("`{path}`") };
    Error::invalid(full, format!("{place} has no `{}`", field.key)).hint(format!("write:  {}", one_line(field.right)))
}

fn one(node: &Node, path: &str, field: &Field) -> Result<(), Error> {
    let wrong = |what: &str, hint: String| {
        Err(Error::invalid(path, format!("`{path}` must be {what}, and is {}", node.noun())).hint(hint))
    };
    let right = || format!("write:  {}", one_line(field.right));
    match (&field.shape, &node.value) {
        (Shape::Text | Shape::Port, Form::Text(_)) | (Shape::Flag, Form::Flag(_)) | (Shape::Number, Form::Whole(_)) => {
            Ok(())
        }
        (Shape::Text, Form::Whole(number)) => {
            wrong("a text in quotes", format!("write:  {} = \"{number}\"", field.key))
        }
        (Shape::Text, _) => wrong("a text in quotes", right()),
        (Shape::Flag, Form::Text(text)) if text == "true" || text == "false" => {
            wrong("true or false without quotes", format!("write:  {} = {text}", field.key))
        }
        (Shape::Flag, _) => wrong("true or false", right()),
        (Shape::Size, Form::Text(text)) => match text.parse::<Size>() {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::invalid(path, format!("`{path}`: `{}` is not an amount", error.text))
                .why("amounts are whole numbers with Mi (1048576 bytes) or Gi (1024 Mi)")
                .hint(format!("write:  {} = \"{}\"", field.key, error.nearest))),
        },
        (Shape::Size, Form::Whole(number)) => {
            let mi = if *number > 1 << 20 { number >> 20 } else { *number };
            wrong("an amount in quotes with its unit", format!("write:  {} = \"{}Mi\"", field.key, mi.max(64)))
        }
        (Shape::Size, _) => wrong("an amount in quotes with its unit", right()),
        (Shape::Whole(min, max), Form::Whole(number)) => whole(path, *number, (*min, *max), field),
        (Shape::Whole(..), Form::Text(text)) if text.parse::<i64>().is_ok() => {
            wrong("a whole number without quotes", format!("write:  {} = {text}", field.key))
        }
        (Shape::Whole(..), Form::Real(number)) if *number >= 1e18 => {
            Err(Error::invalid(path, format!("`{path}` is too large")).hint(right()))
        }
        (Shape::Whole(..), _) => wrong("a whole number", right()),
        (Shape::Number, Form::Real(number)) if number.is_finite() => Ok(()),
        (Shape::Number, Form::Text(text)) if text.parse::<f64>().is_ok() => {
            wrong("a number without quotes", format!("write:  {} = {text}", field.key))
        }
        (Shape::Number, _) => wrong("a number", right()),
        (Shape::Port, Form::Whole(number)) => whole(path, *number, (1, i64::from(u16::MAX)), field),
        (Shape::Port, _) => wrong("the name or number of one of the process's ports", right()),
        (Shape::Choice(choices), Form::Text(text)) => choice(path, field.key, text, choices),
        (Shape::Choice(choices), _) => wrong(&list(choices), right()),
        (Shape::Words, Form::List(items)) => items.iter().enumerate().try_for_each(|(place, item)| match &item.value {
            Form::Text(_) => Ok(()),
            _ => Err(Error::invalid(
                format!("{path}[{place}]"),
                format!("`{path}` must be a list of texts, and item {place} is {}", item.noun()),
            )
            .hint("put every argument in quotes")),
        }),
        (Shape::Words, Form::Text(text)) => {
            let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
            wrong("a list of texts", format!("write:  {} = [{}]", field.key, words.join(", ")))
        }
        (Shape::Words, _) => wrong("a list of texts", right()),
        (Shape::Vars, Form::Table(entries)) => vars(path, entries),
        (Shape::Vars, _) => wrong("a table of texts", right()),
        (Shape::Table(fields), _) => table(node, path, fields),
        (Shape::Named(fields), Form::Table(entries)) => {
            entries.iter().try_for_each(|(name, entry)| table(entry, &join(path, name), fields))
        }
        (Shape::Named(_), _) => wrong("tables by name", right()),
        (Shape::List(fields), Form::List(items)) => {
            items.iter().enumerate().try_for_each(|(place, item)| table(item, &format!("{path}[{place}]"), fields))
        }
        (Shape::List(_), _) => wrong("a list of tables", format!("write:  [[{}]]", list_path(path))),
    }
}

fn list_path(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}

fn whole(path: &str, number: i64, (min, max): (i64, i64), field: &Field) -> Result<(), Error> {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(Error::invalid(path, format!("`{path}` must be {min} to {max}, and is {number}"))
        .hint(format!("write:  {}", one_line(field.right))))
}

fn list(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    quoted.join(" or ")
}

fn choice(path: &str, key: &str, text: &str, choices: &[&'static str]) -> Result<(), Error> {
    if choices.contains(&text) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    let near = nearest(text, choices.iter().copied()).unwrap_or(choices[0]);
    Err(Error::invalid(path, format!("`{path}` must be {}, and is \"{shown}\"", list(choices)))
        .hint(format!("write:  {key} = \"{near}\"")))
}

fn vars(path: &str, entries: &[(String, Node)]) -> Result<(), Error> {
    for (key, value) in entries {
        let quoted = match &value.value {
            Form::Text(_) => continue,
            Form::Whole(number) => number.to_string(),
            Form::Real(number) => number.to_string(),
            Form::Flag(flag) => flag.to_string(),
            _ => "...".to_owned(),
        };
        let message = format!("`{}` must be a text in quotes, and is {}", join(path, key), value.noun());
        return Err(Error::invalid(join(path, key), message).hint(format!("write:  {key} = \"{quoted}\"")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys known here are those of the types, no more and no less.
    #[test]
    fn shapes_and_types_have_the_same_keys() {
        let schema = serde_json::to_value(schemars::schema_for!(super::super::Manifest)).unwrap();
        let keys_of = |name: &str| -> Vec<String> {
            let table = if name.is_empty() { &schema } else { &schema["$defs"][name] };
            let mut keys: Vec<_> =
                table["properties"].as_object().unwrap_or_else(|| panic!("{name}")).keys().cloned().collect();
            keys.sort();
            keys
        };
        for (name, fields) in [
            ("", ROOT),
            ("App", APP),
            ("Image", IMAGE),
            ("Env", ENV),
            ("Process", PROCESS),
            ("Resources", RESOURCES),
            ("Scaling", SCALING),
            ("Restart", RESTART),
            ("SecretsNeed", SECRETS),
            ("Port", PORT),
            ("Health", HEALTH),
            ("Mount", MOUNT),
            ("Volume", VOLUME),
        ] {
            let mut keys: Vec<String> = fields.iter().map(|field| field.key.to_owned()).collect();
            keys.sort();
            assert_eq!(keys, keys_of(name), "{name}");
        }
    }
}
