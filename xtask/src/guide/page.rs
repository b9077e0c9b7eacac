//! The blocks of a guide.

use anyhow::{Result, bail};

const ANYTHING: &str = "...";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Here,
    Elsewhere,
    Once,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Of the fence, from 1.
    pub line: usize,
    pub how: How,
    pub script: String,
    /// Lines that it prints, in order.
    pub expected: Vec<String>,
}

/// Blocks in order. Other fences are for people alone.
pub fn read(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let how = match kind {
            "sh" => How::Here,
            "sh elsewhere" => How::Elsewhere,
            "sh once" => How::Once,
            "text" => {
                if let Some(block) = blocks.last_mut() {
                    block.expected.extend(body.iter().map(|line| (*line).to_owned()));
                }
                continue;
            }
            _ => continue,
        };
        let script = body.iter().fold(String::new(), |script, line| script + line + "\n");
        blocks.push(Block { line: number + 1, how, script, expected: Vec::new() });
    }
    blocks
}

/// Errors unless `said` has the expected lines in order. Blank lines do not count, spaces count as one.
pub fn compare(expected: &[String], said: &str) -> Result<()> {
    let mut rest = said.lines();
    for wanted in expected.iter().filter(|line| !line.trim().is_empty() && line.trim() != ANYTHING) {
        if !rest.any(|line| matches(wanted, line)) {
            bail!("it should print, after what came before,\n  {wanted}\nbut it printed\n{said}");
        }
    }
    Ok(())
}

fn matches(pattern: &str, line: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (plain(pattern), plain(line));
    let parts: Vec<&str> = pattern.split(ANYTHING).map(str::trim).collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return line == first;
    }
    if !line.starts_with(first) || !line[first.len()..].ends_with(last) {
        return false;
    }
    let mut rest = &line[first.len()..line.len() - last.len()];
    parts[1..parts.len() - 1].iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart_and_outputs_belong_to_the_one_before() {
        let page = "# A\n```sh once\nmake\n```\ntext\n```sh elsewhere\nvt up\n```\n```sh\na\nb\n```\n\n```text\none\n```\n```toml\nx = 1\n```\n";
        let blocks = read(page);
        let shown: Vec<_> = blocks.iter().map(|block| (block.line, block.how, block.script.as_str())).collect();
        assert_eq!(shown, [(2, How::Once, "make\n"), (6, How::Elsewhere, "vt up\n"), (9, How::Here, "a\nb\n")]);
        assert_eq!(blocks[2].expected, ["one"]);
    }

    #[test]
    fn an_output_has_the_lines_in_order() {
        let expected = ["hello ... world".to_owned(), "...".to_owned(), "... end".to_owned()];
        assert!(compare(&expected, "x\nhello  big   world\ny\nthe end\n").is_ok());
        assert!(compare(&expected, "the end\nhello big world\n").is_err(), "out of order");
        assert!(compare(&["same".to_owned()], "same thing\n").is_err(), "a line is whole");
        assert!(matches("a ... b ... c", "a 1 b 2 c") && !matches("a ... b ... c", "a 1 c"));
        assert!(!matches("ab ... b", "ab"), "parts do not overlap");
    }
}
