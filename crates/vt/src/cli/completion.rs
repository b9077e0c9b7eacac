use clap::{Args, ValueEnum};
use clap_complete::env::Shells;
use model::Code;
use serde_json::json;

use super::complete;
use super::session::Session;
use crate::failure::{Failure, Outcome};

/// Prints the script that completes words and live names in your shell
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  source <(vt completion bash)
  vt completion zsh > ~/.zfunc/_vt
  vt completion fish > ~/.config/fish/completions/vt.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn run(session: &Session, args: &CompletionArgs) -> Outcome {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let failed = |what: String| Failure::new(Code::Internal, what);
    let shells = Shells::builtins();
    let completer = shells.completer(name).ok_or_else(|| failed(format!("no completion for {name}")))?;
    let mut script = Vec::new();
    completer
        .write_registration(complete::VARIABLE, "vt", "vt", "vt", &mut script)
        .map_err(|error| failed(format!("the script cannot be written: {error}")))?;
    let script = String::from_utf8_lossy(&script).into_owned();
    session.out.value(&json!({ "shell": name, "script": script }), || script.clone())?;
    Ok(0)
}
