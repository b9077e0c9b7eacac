use std::collections::BTreeMap;
use std::io::Read as _;

use clap::{Args, Subcommand};
use model::Code;
use serde_json::{Value, json};

use super::noun;
use super::session::Session;
use crate::client::{Item, Target, key};
use crate::failure::{Failure, Outcome};
use crate::output::Column;
use crate::output::receipt::Receipt;

/// The one name a bundle has.
const BUNDLE: &str = "env";
/// The largest value that is read; the server's limit over the whole bundle may be lower.
const VALUE_BYTES_MAX: u64 = 512 << 10;

/// The env's secrets: set, unset, list. Values come from stdin or a file and are never shown
///
/// In the guest they are in /run/secrets/platform.env. Running instances are replaced one by one to get a change.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt secrets set API_KEY=-           the value is read from stdin
  vt secrets set TLS_KEY=@key.pem
  vt secrets list")]
pub struct SecretsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Sets keys. KEY=- reads stdin (without its last newline), KEY=@FILE reads a file
    #[command(before_help = "Examples:
  vt secrets set API_KEY=-
  vt secrets set TLS_KEY=@key.pem TLS_CERT=@cert.pem
  pass show shop/api | vt secrets set API_KEY=- -e staging")]
    Set(SetArgs),
    /// Removes keys
    #[command(before_help = "Examples:
  vt secrets unset API_KEY
  vt secrets unset TLS_KEY TLS_CERT
  vt secrets unset API_KEY -e staging --json")]
    Unset(UnsetArgs),
    /// Lists the keys, never the values
    #[command(before_help = "Examples:
  vt secrets list
  vt secrets list -e staging
  vt secrets list --json")]
    List,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// KEY=- or KEY=@FILE
    #[arg(required = true, value_name = "KEY=-|KEY=@FILE")]
    pairs: Vec<String>,
}

#[derive(Debug, Args)]
struct UnsetArgs {
    /// Keys to remove
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

pub async fn run(session: &Session, args: &SecretsArgs) -> Outcome {
    match &args.verb {
        Verb::Set(args) => {
            let values = args.pairs.iter().map(|pair| value(pair)).collect::<Result<Vec<_>, _>>()?;
            if args.pairs.iter().filter(|pair| pair.ends_with("=-")).count() > 1 {
                return Err(Failure::usage("stdin can be read for one key only").hint("give the others as KEY=@FILE"));
            }
            let set: BTreeMap<String, String> =
                values.into_iter().map(|(key, source)| Ok((key, source.read()?))).collect::<Result<_, Failure>>()?;
            change(session, json!({ "set": set, "unset": [] }), "secrets set", set.keys().cloned().collect()).await
        }
        Verb::Unset(args) => {
            change(session, json!({ "set": {}, "unset": args.keys }), "secrets unset", args.keys.clone()).await
        }
        Verb::List => list(session).await,
    }
}

enum Source {
    Stdin,
    File(String),
}

impl Source {
    fn read(self) -> Result<String, Failure> {
        let (what, mut bytes) = match &self {
            Source::Stdin => ("stdin".to_owned(), Vec::new()),
            Source::File(path) => (path.clone(), Vec::new()),
        };
        let read = match &self {
            Source::Stdin => std::io::stdin().take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes),
            Source::File(path) => {
                std::fs::File::open(path).and_then(|file| file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes))
            }
        };
        read.map_err(|error| Failure::usage(format!("{what} cannot be read: {error}")))?;
        if bytes.len() as u64 > VALUE_BYTES_MAX {
            return Err(Failure::new(Code::TooLarge, format!("{what} holds more than {VALUE_BYTES_MAX} bytes")));
        }
        // The newline that `echo` and terminals add belongs to nobody's secret. A file is taken as it is.
        if matches!(self, Source::Stdin) && bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| {
            Failure::usage(format!("{what} does not hold text")).hint("encode it first, for example with base64")
        })
    }
}

/// The key and where its value is. A value on the command line is refused without repeating it.
fn value(pair: &str) -> Result<(String, Source), Failure> {
    let (key, source) = pair.split_once('=').ok_or_else(|| {
        Failure::usage(format!("`{pair}` does not say where the value is"))
            .hint(format!("vt secrets set {pair}=-   reads it from stdin"))
    })?;
    let fine = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if !fine {
        return Err(Failure::usage(format!("`{key}` is not a key: use A-Z, 0-9 and `_`")));
    }
    match source {
        "-" => Ok((key.to_owned(), Source::Stdin)),
        _ if source.starts_with('@') && source.len() > 1 => Ok((key.to_owned(), Source::File(source[1..].to_owned()))),
        _ => Err(Failure::usage(format!("the value of {key} stands on the command line, where others can read it"))
            .why("arguments are seen by every process of the machine and kept in the shell's history")
            .hint(format!("vt secrets set {key}=-   reads it from stdin; {key}=@FILE   from a file"))),
    }
}

async fn bundle(target: &Target<'_>) -> Result<Option<Item>, Failure> {
    let scope = target.env().await?.row.inner_scope();
    target.named(noun::noun_of("secret")?, &scope, BUNDLE).await
}

async fn change(session: &Session, spec: Value, operation: &str, keys: Vec<String>) -> Outcome {
    let api = session.api()?;
    let target = Target::new(&api, &session.settings);
    target.app_or_create("").await?;
    target.env_or_create().await?;
    let secret = noun::noun_of("secret")?;
    let item = match bundle(&target).await? {
        Some(before) => api.set(secret, before.row.id.as_str(), &spec, before.row.version).await?,
        None if operation == "secrets unset" => {
            return Err(Failure::new(Code::NotFound, format!("{} has no secrets", session.place()))
                .hint("vt secrets set KEY=-"));
        }
        None => api.create(secret, &target.env().await?.row.inner_scope(), BUNDLE, &spec, &key()).await?,
    };
    let next = vec!["vt status   shows instances being replaced to get them".to_owned(), "vt secrets list".to_owned()];
    let extra = vec![("keys", json!(keys))];
    Receipt { operation, item: &item, next, extra }.print(&session.out)?;
    Ok(0)
}

async fn list(session: &Session) -> Outcome {
    let api = session.api()?;
    let bundle = bundle(&Target::new(&api, &session.settings)).await?;
    let keys = bundle.as_ref().and_then(|bundle| bundle.row.spec["keys"].as_array().cloned()).unwrap_or_default();
    let version = bundle.as_ref().map(|bundle| bundle.row.spec["version"].clone()).unwrap_or_default();
    let items: Vec<Value> = keys.iter().map(|key| json!({ "key": key, "version": version })).collect();
    session.out.list(&items, &Value::Null, &[Column::new("KEY", "/key"), Column::new("VERSION", "/version")])?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_the_command_line_is_refused_and_not_repeated() {
        let failure = value("API_KEY=hunter2").err().unwrap();
        assert!(!failure.render().contains("hunter2"));
        assert!(matches!(value("A=-"), Ok((_, Source::Stdin))));
        assert!(matches!(value("A=@f"), Ok((_, Source::File(path))) if path == "f"));
        for bad in ["A", "=-", "1A=-", "A B=-", "A=@"] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }
}
