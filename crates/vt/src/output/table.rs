//! Tables: columns as wide as their widest cell, two spaces between, no lines.

use serde_json::Value;

use super::text;

/// The most characters of a cell; longer ones end in `…`.
const CELL_CHARS_MAX: usize = 72;

/// One column. What a cell looks like follows from its place: times as ages, bytes as sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub title: String,
    /// A JSON pointer into the item.
    pub pointer: String,
}

impl Column {
    pub fn new(title: impl Into<String>, pointer: impl Into<String>) -> Self {
        Self { title: title.into(), pointer: pointer.into() }
    }
}

/// One line for each item below the titles. An empty list says so.
pub fn render(items: &[Value], columns: &[Column], now_ms: u64) -> String {
    let titles = columns.iter().map(|column| column.title.clone()).collect();
    let rows = items.iter().map(|item| {
        columns
            .iter()
            .map(|column| cell(column, item.pointer(&column.pointer).unwrap_or(&Value::Null), now_ms))
            .collect()
    });
    grid(std::iter::once(titles).chain(rows).collect())
}

/// Cells aligned in columns. Trailing spaces are left out.
pub fn grid(rows: Vec<Vec<String>>) -> String {
    let width = |cell: &String| cell.chars().count();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().filter_map(|row| row.get(at)).map(width).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, full) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', full - width(cell) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn cell(column: &Column, value: &Value, now_ms: u64) -> String {
    let shown = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) if text.contains("sha256:") => text::digest(text),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(at) if column.pointer.ends_with("_ms") => text::when(at, now_ms),
            Some(bytes) if column.pointer.ends_with("_bytes") => text::bytes(bytes),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(entries) if entries.is_empty() => "-".to_owned(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect::<Vec<_>>().join(",")
        }
    };
    text::shorten(&text::clean(&shown), CELL_CHARS_MAX)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_aligned_and_shown_by_what_they_are() {
        let columns = [
            Column::new("NAME", "/name"),
            Column::new("MEMORY", "/spec/memory_bytes"),
            Column::new("SCALE", "/spec/scale"),
            Column::new("AGE", "/created_ms"),
        ];
        let items = [
            json!({ "name": "web-1", "spec": { "memory_bytes": 536_870_912, "scale": { "web": 3 } }, "created_ms": 1_000 }),
            json!({ "name": "a\u{1b}[31m\nb", "spec": {}, "created_ms": 3_590_000 }),
        ];
        insta::assert_snapshot!(render(&items, &columns, 3_601_000), @r"
        NAME      MEMORY     SCALE  AGE
        web-1     512.0 MiB  web=3  1h
        a�[31m�b  -          -      11s
        ");
        assert_eq!(render(&[], &columns, 0), "NAME  MEMORY  SCALE  AGE\n");
    }
}
