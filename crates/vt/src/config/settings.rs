//! Every setting with its origin.

use std::path::PathBuf;

use model::manifest::{self, Manifest};
use model::{Code, Error};

use super::file::{self, Context, File};
use crate::failure::Failure;

/// The settings, in the order in which they are shown.
const KEYS: [&str; 13] = [
    "context",
    "api",
    "ca_file",
    "token_file",
    "token",
    "org",
    "project",
    "app",
    "env",
    "manifest",
    "format",
    "no_input",
    "color",
];

/// What the command line said. Absent: look elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub context: Option<String>,
    pub api: Option<String>,
    pub ca_file: Option<String>,
    pub token_file: Option<String>,
    pub org: Option<String>,
    pub project: Option<String>,
    pub app: Option<String>,
    pub env: Option<String>,
    pub manifest: Option<String>,
    pub format: Option<String>,
    pub no_input: bool,
}

impl Flags {
    fn get(&self, key: &str) -> Option<String> {
        match key {
            "context" => self.context.clone(),
            "api" => self.api.clone(),
            "ca_file" => self.ca_file.clone(),
            "token_file" => self.token_file.clone(),
            "org" => self.org.clone(),
            "project" => self.project.clone(),
            "app" => self.app.clone(),
            "env" => self.env.clone(),
            "manifest" => self.manifest.clone(),
            "format" => self.format.clone(),
            "no_input" => self.no_input.then(|| "true".to_owned()),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: &'static str,
    pub value: Option<String>,
    /// `flag --app`, `environment VT_APP`, `manifest vt.toml`, `context default`, `default`.
    pub origin: String,
}

/// All settings of one run.
#[derive(Debug)]
pub struct Settings {
    pub list: Vec<Setting>,
    /// The manifest in the working folder: absent, read, or wrong. A wrong one matters only to who needs it.
    manifest: Result<Option<Manifest>, Error>,
    /// A context that was named and does not exist, or a file of contexts that cannot be read.
    problem: Option<Error>,
}

impl Settings {
    /// Reads flags, environment, manifest and context. Never fails: what is wrong is told to who asks for it.
    pub fn read(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut problem = None;
        let path = file::path(&env);
        let file = File::read(&path).unwrap_or_else(|error| {
            problem = Some(error);
            File::default()
        });
        let (name, context) = context(flags, &env, &file).unwrap_or_else(|error| {
            problem = Some(error);
            (None, None)
        });
        let manifest_path =
            flags.manifest.clone().or_else(|| env("VT_MANIFEST")).unwrap_or_else(|| manifest::FILE_NAME.to_owned());
        let named = flags.manifest.is_some() || env("VT_MANIFEST").is_some();
        let manifest = read_manifest(&manifest_path, named);
        let folder = path.parent().map(PathBuf::from).unwrap_or_default();
        let list = KEYS
            .iter()
            .map(|key| {
                let (value, origin) = if let Some(value) = flags.get(key) {
                    (Some(value), format!("flag --{}", key.replace('_', "-")))
                } else if let Some(value) = variable(key, &env) {
                    value
                } else if let Some(value) =
                    manifest.as_ref().ok().and_then(Option::as_ref).and_then(|found| said_by(found, key))
                {
                    (Some(value), format!("manifest {manifest_path}"))
                } else if let Some(value) = context.as_ref().and_then(|context| said_in(context, key, &folder)) {
                    (Some(value), format!("context {}", name.as_deref().unwrap_or_default()))
                } else {
                    default(key, name.as_deref())
                };
                Setting { key, value, origin }
            })
            .collect();
        Self { list, manifest, problem }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.list.iter().find(|setting| setting.key == key)?.value.as_deref()
    }

    /// True when a flag or the environment said it, rather than a file or a default.
    pub fn explicit(&self, key: &str) -> bool {
        let setting = self.list.iter().find(|setting| setting.key == key);
        setting.is_some_and(|setting| setting.origin.starts_with("flag") || setting.origin.starts_with("environment"))
    }

    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "" | "0" | "false" | "no"))
    }

    /// What is wrong with the file of contexts, for those who need one.
    pub fn contexts(&self) -> Result<(), Failure> {
        self.problem.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    /// The manifest, which must be there.
    pub fn manifest(&self) -> Result<&Manifest, Failure> {
        let path = self.get("manifest").unwrap_or(manifest::FILE_NAME);
        match &self.manifest {
            Ok(Some(manifest)) => Ok(manifest),
            Ok(None) => Err(Failure::new(Code::NotFound, format!("there is no {path} here"))
                .hint("vt launch --image REF   writes one from an image's own settings")),
            Err(error) => Err(error.clone().into()),
        }
    }

    /// The manifest, where there is one.
    pub fn manifest_optional(&self) -> Result<Option<&Manifest>, Failure> {
        self.manifest.as_ref().map(Option::as_ref).map_err(|error| error.clone().into())
    }

    /// The app's name.
    pub fn app(&self) -> Result<&str, Failure> {
        if let Some(app) = self.get("app") {
            return Ok(app);
        }
        // A manifest that cannot be read is why the name is missing.
        self.manifest_optional()?;
        Err(Failure::usage("which app is meant?")
            .why("there is no vt.toml here that names one")
            .hint("run it in the app's folder, or say -a APP, or set VT_APP"))
    }
}

fn context(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: &File,
) -> Result<(Option<String>, Option<Context>), Error> {
    let asked = flags.context.clone().or_else(|| env("VT_CONTEXT"));
    let name = asked.clone().or_else(|| file.current.clone()).or_else(|| {
        // With a single one there is nothing to choose.
        (file.contexts.len() == 1).then(|| file.contexts.keys().next().cloned()).flatten()
    });
    let Some(name) = name else { return Ok((None, None)) };
    match file.contexts.get(&name) {
        Some(context) => Ok((Some(name), Some(context.clone()))),
        None => {
            let near = manifest::nearest(&name, file.contexts.keys().map(String::as_str));
            let hint = near.map_or_else(
                || "vt up   starts a cloud here and writes its context".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            Err(Error::new(Code::NotFound, format!("there is no context `{name}`")).hint(hint))
        }
    }
}

/// `VT_TOKEN` is the token itself; the other variables are named like their keys.
fn variable(key: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<(Option<String>, String)> {
    if key == "color" {
        return env("NO_COLOR").map(|_| (Some("false".to_owned()), "environment NO_COLOR".to_owned()));
    }
    let name = format!("VT_{}", key.to_uppercase());
    env(&name).map(|value| (Some(value), format!("environment {name}")))
}

fn said_by(manifest: &Manifest, key: &str) -> Option<String> {
    if key == "app" { manifest.app.name.clone() } else { None }
}

/// Paths in the file may be relative to its folder.
fn said_in(context: &Context, key: &str, folder: &std::path::Path) -> Option<String> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path).display().to_string());
    match key {
        "api" => Some(context.api.clone()),
        "ca_file" => path(&context.ca_file),
        "token_file" => path(&context.token_file),
        "token" => context.token.clone(),
        "org" => context.org.clone(),
        "project" => context.project.clone(),
        "env" => context.env.clone(),
        _ => None,
    }
}

fn default(key: &str, context: Option<&str>) -> (Option<String>, String) {
    let value = match key {
        "context" => match context {
            Some(name) => return (Some(name.to_owned()), "the file of contexts".to_owned()),
            None => None,
        },
        "org" | "project" => Some("default"),
        "env" => Some("prod"),
        "manifest" => Some(manifest::FILE_NAME),
        "format" => Some("table"),
        "no_input" => Some("false"),
        "color" => Some("true"),
        _ => None,
    };
    (value.map(str::to_owned), if value.is_some() { "default" } else { "not set" }.to_owned())
}

/// The manifest at `path`; one that nobody named may be absent.
fn read_manifest(path: &str, named: bool) -> Result<Option<Manifest>, Error> {
    let bytes = match world::file::read_optional(path.as_ref()) {
        Ok(Some(bytes)) => bytes,
        Ok(None) if named => {
            return Err(
                Error::new(Code::NotFound, format!("there is no {path}")).hint("say which with --manifest FILE")
            );
        }
        Ok(None) => return Ok(None),
        Err(error) => return Err(Error::new(Code::Failed, format!("{path} cannot be read: {error}"))),
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("manifest", format!("{path} is not UTF-8")))?;
    manifest::parse(&text).map(Some).map_err(|error| Error { message: format!("{path}: {}", error.message), ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment_over_the_manifest_over_the_context_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        let context = Context {
            api: "https://10.0.0.1:7443".into(),
            ca_file: Some("ca.pem".into()),
            project: Some("shop".into()),
            ..Context::default()
        };
        file::save(&config, "lab", context).unwrap();
        let manifest = folder.path().join("vt.toml");
        std::fs::write(
            &manifest,
            "schema_version = \"v1\"\n[app]\nname = \"web\"\n[processes.web]\nresources = { memory = \"64Mi\" }\n",
        )
        .unwrap();
        let vars = |extra: &'static [(&'static str, &'static str)]| {
            let (config, manifest) = (config.display().to_string(), manifest.display().to_string());
            move |name: &str| match name {
                "VT_CONFIG" => Some(config.clone()),
                "VT_MANIFEST" => Some(manifest.clone()),
                _ => extra.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            }
        };
        let origin = |settings: &Settings, key: &str| {
            let setting = settings.list.iter().find(|setting| setting.key == key).unwrap();
            (setting.value.clone().unwrap_or_default(), setting.origin.split(' ').next().unwrap().to_owned())
        };
        let settings = Settings::read(&Flags::default(), &vars(&[]));
        assert_eq!(origin(&settings, "app"), ("web".into(), "manifest".into()));
        assert_eq!(origin(&settings, "project"), ("shop".into(), "context".into()));
        assert_eq!(origin(&settings, "env"), ("prod".into(), "default".into()));
        assert_eq!(origin(&settings, "ca_file").0, folder.path().join("ca.pem").display().to_string());
        let settings = Settings::read(&Flags::default(), &vars(&[("VT_APP", "api"), ("VT_PROJECT", "")]));
        assert_eq!(origin(&settings, "app"), ("api".into(), "environment".into()));
        assert_eq!(origin(&settings, "project"), ("shop".into(), "context".into()));
        let flags = Flags { app: Some("cron".into()), ..Flags::default() };
        let settings = Settings::read(&flags, &vars(&[("VT_APP", "api")]));
        assert_eq!(origin(&settings, "app"), ("cron".into(), "flag".into()));
        let settings = Settings::read(&Flags::default(), &vars(&[("VT_CONTEXT", "lap")]));
        assert!(settings.contexts().unwrap_err().error.hint.contains("`lab`"));
    }
}
