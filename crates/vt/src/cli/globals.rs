//! Options that every command takes.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::complete;
use crate::config::Flags;
use crate::output::Format;

const HEADING: &str = "Options of every command";

#[derive(Debug, Args)]
pub struct Globals {
    /// The app; else VT_APP, else the manifest's
    #[arg(short, long, global = true, value_name = "NAME", help_heading = HEADING, add = ArgValueCompleter::new(complete::apps))]
    pub app: Option<String>,
    /// The env; else VT_ENV, else the context's, else prod
    #[arg(short, long, global = true, value_name = "NAME", help_heading = HEADING, add = ArgValueCompleter::new(complete::envs))]
    pub env: Option<String>,
    /// The project; else VT_PROJECT, else the context's
    #[arg(long, global = true, value_name = "NAME", help_heading = HEADING)]
    pub project: Option<String>,
    /// The org; else VT_ORG, else the context's
    #[arg(long, global = true, value_name = "NAME", help_heading = HEADING)]
    pub org: Option<String>,
    /// The manifest; else VT_MANIFEST, else vt.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub manifest: Option<String>,
    /// Which cloud, by its name in the config file; else VT_CONTEXT
    #[arg(long, global = true, value_name = "NAME", help_heading = HEADING)]
    pub context: Option<String>,
    /// Address of the API; else VT_API, else the context's
    #[arg(long, global = true, value_name = "URL", help_heading = HEADING)]
    pub api: Option<String>,
    /// Authority that signed the API's certificate; else VT_CA_FILE
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub ca_file: Option<String>,
    /// File with the token; else VT_TOKEN_FILE, or VT_TOKEN with the token itself
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub token_file: Option<String>,
    /// How to write data; else VT_FORMAT
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = HEADING)]
    pub format: Option<Format>,
    /// The same as --format json
    #[arg(long, global = true, conflicts_with = "format", help_heading = HEADING)]
    pub json: bool,
    /// Never ask; fail and name the flag that answers
    #[arg(long, global = true, help_heading = HEADING)]
    pub no_input: bool,
}

impl Globals {
    pub fn flags(&self) -> Flags {
        let format = if self.json { Some(Format::Json) } else { self.format };
        Flags {
            context: self.context.clone(),
            api: self.api.clone(),
            ca_file: self.ca_file.clone(),
            token_file: self.token_file.clone(),
            org: self.org.clone(),
            project: self.project.clone(),
            app: self.app.clone(),
            env: self.env.clone(),
            manifest: self.manifest.clone(),
            format: format.map(|format| word(format).to_owned()),
            no_input: self.no_input,
        }
    }
}

const fn word(format: Format) -> &'static str {
    match format {
        Format::Table => "table",
        Format::Json => "json",
        Format::Yaml => "yaml",
        Format::Csv => "csv",
    }
}
