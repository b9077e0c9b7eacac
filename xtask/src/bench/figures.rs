//! Named figures with their goals: as a table, as JSON, as a row of docs/benchmarks.md.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::run::{self, output};

pub const PAGE: &str = "docs/benchmarks.md";

struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// At most this.
    goal: Option<f64>,
}

#[derive(Default)]
pub struct Figures {
    figures: Vec<Figure>,
    notes: Vec<(&'static str, String)>,
}

/// The middle one; the order is lost.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Figures {
    pub fn add(&mut self, name: &'static str, value: f64, unit: &'static str, goal: Option<f64>) {
        self.figures.push(Figure { name, value, unit, goal });
    }

    pub fn note(&mut self, name: &'static str, value: &str) {
        self.notes.push((name, value.to_owned()));
    }

    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.to_json()?)?);
            return Ok(());
        }
        for figure in &self.figures {
            let goal = figure.goal.map_or_else(String::new, |goal| {
                format!("   goal: at most {goal}   {}", if figure.value <= goal { "met" } else { "MISSED" })
            });
            println!("{:<28} {:>10.2} {:<12}{goal}", figure.name, figure.value, figure.unit);
        }
        for (name, value) in &self.notes {
            println!("{name:<28} {value:>10}");
        }
        Ok(())
    }

    fn to_json(&self) -> Result<Value> {
        let mut all = Map::new();
        for figure in &self.figures {
            all.insert(figure.name.to_owned(), json!((figure.value * 1000.0).round() / 1000.0));
        }
        for (name, value) in &self.notes {
            all.insert((*name).to_owned(), json!(value));
        }
        let goals = self.figures.iter().filter_map(|figure| Some((figure.name.to_owned(), json!(figure.goal?))));
        all.insert("goals".to_owned(), Value::Object(goals.collect()));
        all.insert("commit".to_owned(), json!(commit()?));
        Ok(Value::Object(all))
    }

    /// Adds a row below the last one of the page's first table.
    pub fn write(&self) -> Result<()> {
        let path = run::root().join(PAGE);
        let page = std::fs::read_to_string(&path).context(PAGE)?;
        let date = output(Command::new("date").args(["-u", "+%F"]))?;
        let value = |name: &str| {
            self.figures
                .iter()
                .find(|figure| figure.name == name)
                .map_or_else(|| "?".to_owned(), |figure| format!("{:.2}", figure.value))
        };
        let note = |name: &str| self.notes.iter().find(|(known, _)| *known == name).map_or("?", |(_, value)| value);
        let row = format!(
            "| {} | {} | {} | **{}** | {} | {} | {} | {} | {} / {} | {} / {} | {} |\n",
            date.trim(),
            commit()?,
            note("accelerator"),
            value("deploy_over_bare_boot"),
            value("deploy_accepted_to_200_ms"),
            value("bare_boot_to_200_ms"),
            value("rest_resident_mb"),
            value("rest_cpu_percent"),
            value("get_p50_ms"),
            value("get_p99_ms"),
            value("create_p50_ms"),
            value("create_p99_ms"),
            value("fdatasync_p50_ms"),
        );
        let section = page.find("\n## ").unwrap_or(page.len());
        let last = page[..section].rfind("\n|");
        let end = last.and_then(|last| page[last + 1..].find('\n').map(|line| last + 1 + line + 1));
        let end = end.with_context(|| format!("{PAGE} has no table"))?;
        std::fs::write(&path, format!("{}{row}{}", &page[..end], &page[end..])).context(PAGE)
    }
}

pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| output(Command::new("git").current_dir(run::root()).args(arguments));
    let name = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--", "crates", "Cargo.lock"])?.trim().is_empty();
    Ok(format!("{}{}", name.trim(), if changed { "+" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&mut [9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
    }
}
