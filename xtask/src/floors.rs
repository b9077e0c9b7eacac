//! Arrows between crates point strictly down.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct House {
    floor: Vec<Floor>,
    engines: Engines,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    name: String,
    crates: Vec<String>,
    /// Where it is there, arrows go to these crates alone.
    #[serde(default)]
    only: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Engines {
    crates: Vec<String>,
    only: Vec<String>,
}

const BEGIN: &str = "<!-- floors: drawn by `cargo xtask floors --write` -->";
const END: &str = "<!-- floors: end -->";

/// Checks the arrows; with `write` redraws ARCHITECTURE.md, otherwise the drawing there must be right already.
pub fn floors(write: bool) -> Result<()> {
    let text = std::fs::read_to_string(run::root().join("floors.toml")).context("floors.toml")?;
    let house: House = toml::from_str(&text).context("floors.toml")?;
    let arrows = arrows()?;
    let wrong = wrong(&house, &arrows);
    if !wrong.is_empty() {
        bail!("arrows that floors.toml does not allow:\n  {}", wrong.join("\n  "));
    }
    let path = run::root().join("ARCHITECTURE.md");
    let page = std::fs::read_to_string(&path).context("ARCHITECTURE.md")?;
    let (head, rest) = page.split_once(BEGIN).context("ARCHITECTURE.md has no place for the drawing")?;
    let (_, tail) = rest.split_once(END).context("ARCHITECTURE.md has no end of the drawing")?;
    let drawn = format!("{head}{BEGIN}\n```text\n{}```\n{END}{tail}", draw(&house, &arrows));
    if drawn == page {
        println!("floors: {} crates, every arrow points down", arrows.len());
        return Ok(());
    }
    if !write {
        bail!("the drawing in ARCHITECTURE.md is old: cargo xtask floors --write");
    }
    std::fs::write(path, drawn).context("ARCHITECTURE.md")
}

type Arrows = BTreeMap<String, Vec<String>>;

/// Every crate of the workspace with the workspace's crates it depends on, tests' dependencies left out.
fn arrows() -> Result<Arrows> {
    let text = run::output(&mut run::cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata")?;
    let mut arrows = Arrows::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        let dependencies = package["dependencies"].as_array().context("a package has dependencies")?;
        let mut own: Vec<String> = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect();
        own.sort();
        arrows.insert(name.to_owned(), own);
    }
    Ok(arrows)
}

fn wrong(house: &House, arrows: &Arrows) -> Vec<String> {
    let level = |name: &str| house.floor.iter().position(|floor| floor.crates.iter().any(|known| known == name));
    let mut wrong = Vec::new();
    for (from, to) in arrows {
        let Some(high) = level(from) else {
            wrong.push(format!("{from} stands on no floor"));
            continue;
        };
        for target in to {
            let below = level(target).is_some_and(|low| low < high);
            let own_rule = house.floor[high].only.as_ref().is_none_or(|only| only.contains(target));
            let engine = house.engines.crates.contains(from);
            let engine_rule = !engine || house.engines.only.contains(target);
            if !below || !own_rule || !engine_rule {
                wrong.push(format!("{from} -> {target}"));
            }
        }
    }
    for floor in &house.floor {
        wrong.extend(
            floor
                .crates
                .iter()
                .filter(|name| !arrows.contains_key(*name))
                .map(|name| format!("{name} is listed and not there")),
        );
    }
    wrong
}

fn draw(house: &House, arrows: &Arrows) -> String {
    let mut out = String::new();
    for (number, floor) in house.floor.iter().enumerate().rev() {
        let _ = writeln!(out, "{number} {}", floor.name);
        for name in &floor.crates {
            let _ = writeln!(out, "    {name:<12} -> {}", arrows.get(name).map_or_else(String::new, |to| to.join(" ")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house() -> House {
        toml::from_str(
            "[[floor]]\nname = \"low\"\ncrates = [\"a\", \"b\"]\n[[floor]]\nname = \"high\"\ncrates = [\"c\", \"d\"]\n\
             [engines]\ncrates = [\"d\"]\nonly = [\"a\"]\n",
        )
        .unwrap()
    }

    fn arrows(pairs: &[(&str, &[&str])]) -> Arrows {
        let mut all: Arrows = ["a", "b", "c", "d"].map(|name| (name.to_owned(), Vec::new())).into();
        all.extend(
            pairs.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(|name| (*name).to_owned()).collect())),
        );
        all
    }

    #[test]
    fn arrows_point_strictly_down() {
        assert!(wrong(&house(), &arrows(&[("c", &["a", "b"]), ("d", &["a"])])).is_empty());
        assert_eq!(wrong(&house(), &arrows(&[("a", &["b"])])), ["a -> b"], "sideways");
        assert_eq!(wrong(&house(), &arrows(&[("a", &["c"])])), ["a -> c"], "up");
        assert_eq!(wrong(&house(), &arrows(&[("d", &["b"])])), ["d -> b"], "an engine reaches the words alone");
        assert_eq!(wrong(&house(), &arrows(&[("e", &[])])), ["e stands on no floor"]);
    }
}
