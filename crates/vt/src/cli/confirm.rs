//! Questions before something that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::cli::session::Session;
use crate::failure::{EXIT_INTERRUPTED, Failure};

/// Asks for `word` to be typed. Where nobody can answer, fails and names the flag that does.
pub fn typed(session: &Session, question: &str, word: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if session.settings.flag("no_input") || !io::stdin().is_terminal() {
        return Err(Failure::usage("this has to be confirmed, and nobody is there to do so")
            .why(question)
            .hint("say --yes"));
    }
    let _ = write!(io::stderr().lock(), "{question}\nType `{word}` to go on: ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == word {
        return Ok(());
    }
    Err(Failure::usage("nothing was changed: the answer was another").exit(EXIT_INTERRUPTED))
}
