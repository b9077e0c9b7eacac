//! The pages name files; the files are there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run;

/// Folders that hold pages, the root first. Not searched below.
const FOLDERS: &[&str] = &["", "docs", "docs/decisions", "docs/guides"];

/// Checks every relative link, and every source file that is named as `crate/src/...`.
pub fn docs() -> Result<()> {
    let mut wrong = Vec::new();
    let mut named = 0;
    for page in pages()? {
        let text = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        let folder = page.parent().unwrap_or(Path::new("."));
        let links = links(&text).map(|link| folder.join(link));
        let sources = sources(&text).map(|source| run::root().join("crates").join(source));
        for path in links.chain(sources) {
            named += 1;
            if !path.exists() {
                wrong.push(format!("{} names {}", page.display(), path.display()));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("files that are not there:\n  {}", wrong.join("\n  "));
    }
    println!("docs: {named} files are named, all are there");
    Ok(())
}

fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for folder in FOLDERS {
        let folder = run::root().join(folder);
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// Targets of `[text](target)` that are files of ours.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Words that look like `crate/src/file.rs` or `crate/src/folder/`.
fn sources(text: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_ascii_alphanumeric() || "_-/.".contains(c);
    let words = text.split(move |c| !part(c)).map(|word| word.trim_end_matches('.'));
    words.filter(|word| {
        let below = word.split_once("/src/").is_some_and(|(name, _)| !name.is_empty() && !name.contains('/'));
        below && (Path::new(word).extension().is_some_and(|end| end == "rs") || word.ends_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_sources_are_found() {
        let text = "See [a](b/c.md#x), [web](https://x.example) and `vt/src/main.rs`. Also kinds/src/vm/ (here).";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b/c.md"]);
        assert_eq!(sources(text).collect::<Vec<_>>(), ["vt/src/main.rs", "kinds/src/vm/"]);
    }
}
