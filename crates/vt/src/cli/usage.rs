//! Command lines that are not understood, and help.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use model::Code;

use crate::config::Settings;
use crate::failure::{EXIT_EXEC, EXIT_USAGE, Failure};
use crate::output::{Format, Out};

/// Prints help, or refuses the command line in the form of every other error.
pub fn answer(error: &clap::Error, arguments: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone away needs no help.
            let _ = error.print();
            0
        }
        _ => {
            let json = arguments.iter().any(|argument| argument == "--json" || argument == "--format=json")
                || arguments.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
            let format = if json { Format::Json } else { Format::Table };
            Out::new(format, std::env::var_os("NO_COLOR").is_some(), 0).failure(&failure(error, arguments));
            let exec = arguments.iter().skip(1).find(|argument| !argument.to_string_lossy().starts_with('-'));
            if exec.is_some_and(|word| word == "exec") { EXIT_EXEC } else { EXIT_USAGE }
        }
    }
}

/// The command that was meant, as far as its words are known, with `--help`.
fn help(arguments: &[OsString]) -> String {
    let mut tree = super::tree();
    let mut words = vec!["vt".to_owned()];
    for argument in arguments.iter().skip(1) {
        let Some(next) = tree.find_subcommand(argument).cloned() else { break };
        words.push(next.get_name().to_owned());
        tree = next;
    }
    format!("{} --help", words.join(" "))
}

fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let rendered = error.render().to_string();
    let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "a word is missing after this command".clone_into(&mut message);
    }
    // A list of what is missing stands on the lines below.
    if message.ends_with(':') {
        let rest: Vec<&str> =
            lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("tip:")).collect();
        message = format!("{message} {}", rest.join(", "));
    }
    let suggested = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
        .into_iter()
        .filter_map(|kind| error.get(kind))
        .find_map(|value| match value {
            ContextValue::String(text) => Some(text.clone()),
            ContextValue::Strings(texts) => texts.first().cloned(),
            _ => None,
        });
    let usage = rendered.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).map(str::to_owned);
    let hint = match (suggested, usage) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some(usage)) => usage,
        (None, None) => help(arguments),
    };
    Failure::new(Code::InvalidArgument, message).hint(hint).exit(EXIT_USAGE)
}

/// The format that the settings ask for.
pub fn format(settings: &Settings) -> Result<Format, Failure> {
    let word = settings.get("format").unwrap_or("table");
    <Format as clap::ValueEnum>::from_str(word, true).map_err(|_| {
        let near = model::manifest::nearest(word, ["table", "json", "yaml", "csv"]).unwrap_or("json");
        Failure::usage(format!("`{word}` is not a format"))
            .hint(format!("table, json, yaml or csv; did you mean `{near}`?"))
    })
}
