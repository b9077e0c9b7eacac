//! What a command says: data to stdout in the asked format, everything else to stderr.
//!
//! ```text
//! value   one object                    table: the human form | json | yaml | csv: one line
//! list    {"items": [...], "next": _}   table | json | yaml | csv
//! stream  items as they come            table: lines | json: NDJSON | yaml: documents | csv: lines
//! note    for people, on stderr, never in the data
//! ```

mod csv;
pub mod receipt;
pub mod steps;
pub mod table;
pub mod text;
pub mod yaml;

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

use crate::failure::Failure;
pub use table::Column;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
    Csv,
}

/// Where a command's words go.
#[derive(Debug)]
pub struct Out {
    pub format: Format,
    /// stderr is a terminal that may be drawn on.
    pub live: bool,
    /// Colour on stderr and in human output.
    pub color: bool,
    /// Milliseconds since the Unix epoch, fixed for the command so that its ages agree with each other.
    pub now_ms: u64,
    csv_head: Cell<bool>,
    /// The last line on the terminal is one that gives way to the next.
    drawn: Cell<bool>,
}

impl Out {
    pub fn new(format: Format, no_color: bool, now_ms: u64) -> Self {
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = terminal && !no_color && io::stdout().is_terminal();
        Self { format, live: terminal, color, now_ms, csv_head: Cell::new(false), drawn: Cell::new(false) }
    }

    pub fn human(&self) -> bool {
        self.format == Format::Table
    }

    /// One object.
    pub fn value(&self, value: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => write(&human()),
            Format::Json => write(&pretty(value)),
            Format::Yaml => write(&yaml::text(value)),
            Format::Csv => write(&csv::object(value)),
        }
    }

    /// A page or all of something.
    pub fn list(&self, items: &[Value], next: &Value, columns: &[Column]) -> Result<(), Failure> {
        match self.format {
            Format::Table => write(&table::render(items, columns, self.now_ms)),
            Format::Json => write(&pretty(&json!({ "items": items, "next": next }))),
            Format::Yaml => write(&yaml::text(&json!({ "items": items, "next": next }))),
            Format::Csv => write(&csv::table(items, columns)),
        }
    }

    /// One item of something that goes on.
    pub fn item(&self, item: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => write(&human()),
            Format::Json => write(&format!("{item}\n")),
            Format::Yaml => write(&format!("---\n{}", yaml::text(item))),
            Format::Csv => {
                let text = csv::object(item);
                let text = if self.csv_head.replace(true) {
                    text.split_once('\n').map_or("", |(_, rest)| rest)
                } else {
                    &text
                };
                write(text)
            }
        }
    }

    /// For people, whatever the format.
    pub fn note(&self, text: impl AsRef<str>) {
        // What is drawn on the last line gives way. Nobody is left to tell when stderr is gone.
        let clear = if self.drawn.take() { "\r\x1b[2K" } else { "" };
        let _ = writeln!(io::stderr().lock(), "{clear}{}", text.as_ref());
    }

    /// An error, in the form that the format asks for.
    pub fn failure(&self, failure: &Failure) {
        let mut stderr = io::stderr().lock();
        let _ = match self.format {
            Format::Table | Format::Csv => {
                let text = failure.render();
                if self.color {
                    write!(stderr, "\x1b[1;31m{}\x1b[0m{}", &text[..5], &text[5..])
                } else {
                    write!(stderr, "{text}")
                }
            }
            Format::Json => writeln!(stderr, "{}", failure.to_json()),
            Format::Yaml => write!(stderr, "{}", yaml::text(&failure.to_json())),
        };
    }

    /// `text` between the codes of a colour, where colour is wanted.
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()) + "\n"
}

/// Writes data. A reader that has gone away (`| head`) ends the command quietly.
pub fn write(text: &str) -> Result<(), Failure> {
    write_bytes(text.as_bytes())
}

pub fn write_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::new(model::Code::Failed, "").exit(0)),
        Err(error) => Err(Failure::new(model::Code::Failed, format!("the output cannot be written: {error}"))),
    }
}
