use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use image::{Credentials, Limits, Platform};
use serde_json::{Value, json};

use super::deploy::with_image;
use super::session::Session;
use super::{status, upload};
use crate::client::{Target, nouns};
use crate::failure::{EXIT_CHANGES, Failure, Outcome};
use crate::output::text;

/// What `vt deploy` would change; ends with 10 when it would
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt plan
  vt plan --image registry.example/shop:1.5
  vt plan --json; test $? -eq 10 && echo changes")]
pub struct PlanArgs {
    /// Instead of the manifest's image
    #[arg(long, value_name = "REF")]
    image: Option<String>,
}

pub async fn run(session: &Session, args: &PlanArgs) -> Outcome {
    let manifest = with_image(session.settings.manifest()?.clone(), args.image.as_deref())?;
    let reference = upload::source(session, &manifest, args.image.is_some())?;
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    let live = match target.env().await {
        Ok(env) => status::read(&api, env).await?.live_release(),
        Err(failure) if failure.error.code == model::Code::NotFound => None,
        Err(failure) => return Err(failure),
    };
    let release = match (&live, nouns::find("release")) {
        (Some(id), Some(noun)) => Some(api.show(noun, id).await?),
        _ => None,
    };
    let after = serde_json::to_value(&manifest).map_err(|error| model::Error::internal(error.to_string()))?;
    let before =
        release.as_ref().and_then(|release| release.raw.pointer("/spec/manifest")).cloned().unwrap_or(Value::Null);
    let mut changes = differences(&before, &after);
    let running = release.as_ref().and_then(|release| {
        let at = |pointer| release.raw.pointer(pointer).and_then(Value::as_str);
        at("/status/digest").or_else(|| at("/spec/resolved/digest")).map(str::to_owned)
    });
    match digest(&reference).await {
        Ok(digest) if running.as_ref() != Some(&digest) => {
            changes.push(json!({ "field": "image digest", "from": running, "to": digest }));
        }
        Ok(_) => {}
        Err(failure) => session.out.note(format!("the image was not compared: {}", failure.error.message)),
    }
    let changed = !changes.is_empty();
    let answer = json!({ "changed": changed, "release": live, "changes": changes });
    session.out.value(&answer, || render(&changes, release.as_ref().map(|release| release.row.name.as_str())))?;
    Ok(if changed { EXIT_CHANGES } else { 0 })
}

/// The digest that a deploy would pin now.
async fn digest(reference: &image::Reference) -> Result<String, Failure> {
    let source = image::open(reference, &Credentials::default()).await?;
    let resolved = image::resolve(&*source, Platform::host(), &Limits::default()).await?;
    Ok(resolved.digest.to_string())
}

fn render(changes: &[Value], release: Option<&str>) -> String {
    let Some(release) = release else { return "nothing runs yet; vt deploy   makes the first release\n".to_owned() };
    if changes.is_empty() {
        return format!("no changes: {release} is what the manifest says\n");
    }
    let mut out = format!("changes over {release}:\n");
    for change in changes {
        let side = |key: &str| match &change[key] {
            Value::Null => "(nothing)".to_owned(),
            Value::String(text) if text.starts_with("sha256:") => text::digest(text),
            other => text::shorten(&text::clean(&other.to_string()), 60),
        };
        let _ = writeln!(out, "  {}: {} -> {}", change["field"].as_str().unwrap_or_default(), side("from"), side("to"));
    }
    out + "next: vt deploy\n"
}

/// The leaves that differ, in order of their path.
fn differences(before: &Value, after: &Value) -> Vec<Value> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    leaves("", before, &mut old);
    leaves("", after, &mut new);
    let paths: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| json!({ "field": path, "from": old.get(path), "to": new.get(path) }))
        .collect()
}

fn leaves(path: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&path, value, out);
            }
        }
        // A list of texts is one thing to its reader; a list of tables is not.
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, value) in items.iter().enumerate() {
                leaves(&format!("{path}[{at}]"), value, out);
            }
        }
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        leaf => {
            out.insert(path.to_owned(), leaf.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let before = json!({ "env": { "vars": { "A": "1" } }, "ports": [{ "internal": 80 }], "command": ["/a", "b"], "none": [] });
        let after =
            json!({ "env": { "vars": { "A": "2", "B": "x" } }, "ports": [{ "internal": 80 }], "command": ["/a"] });
        insta::assert_snapshot!(render(&differences(&before, &after), Some("v3")), @r#"
        changes over v3:
          command: ["/a","b"] -> ["/a"]
          env.vars.A: "1" -> "2"
          env.vars.B: (nothing) -> "x"
        next: vt deploy
        "#);
        assert!(differences(&before, &before).is_empty());
    }
}
