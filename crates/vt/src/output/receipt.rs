//! What a mutation answers: what was asked, of which row, what is wished, what is seen, and what to run next.

use serde_json::{Value, json};

use super::{Out, text};
use crate::client::Item;
use crate::failure::Failure;

/// A receipt over the row that a mutation answered with.
#[derive(Debug)]
pub struct Receipt<'a> {
    /// `created`, `changed`, `removal asked`: what was accepted.
    pub operation: &'a str,
    pub item: &'a Item,
    /// Commands, most useful first.
    pub next: Vec<String>,
    /// Shown and sent beside the rest: a token's text, the scale that was asked.
    pub extra: Vec<(&'static str, Value)>,
}

impl Receipt<'_> {
    pub fn to_json(&self) -> Value {
        let row = &self.item.row;
        let mut out = json!({
            "operation": self.operation,
            "time": text::time(row.updated_ms),
            "id": row.id,
            "kind": row.kind,
            "name": row.name,
            "scope": row.scope,
            "version": row.version,
            "desired": { "generation": row.generation, "deleting": row.deleting() },
            "current": { "generation": row.observed_generation, "phase": row.phase, "reason": row.reason },
            "next": self.next,
        });
        for (key, value) in &self.extra {
            out[*key] = value.clone();
        }
        out
    }

    pub fn render(&self) -> String {
        let row = &self.item.row;
        let mut lines = vec![vec![self.operation.to_owned(), format!("{} {}", row.kind, row.name)]];
        let mut line = |word: &str, text: String| lines.push(vec![format!("  {word}"), text]);
        line("id", row.id.to_string());
        let wish = if row.deleting() { "gone".to_owned() } else { format!("generation {}", row.generation) };
        line("wished", wish);
        let seen = match &row.reason {
            Some(reason) => format!("{} ({}: {})", row.phase, reason.code, text::clean(&reason.message)),
            None if row.current() => row.phase.clone(),
            None => format!("{} (not looked at since the change)", row.phase),
        };
        line("seen", seen);
        for (key, value) in &self.extra {
            line(key, value.as_str().map_or_else(|| value.to_string(), text::clean));
        }
        for (place, command) in self.next.iter().enumerate() {
            line(if place == 0 { "next" } else { "" }, command.clone());
        }
        super::table::grid(lines)
    }

    pub fn print(&self, out: &Out) -> Result<(), Failure> {
        out.value(&self.to_json(), || self.render())
    }
}
