//! Comma-separated values, after RFC 4180 with `\n`.

use serde_json::Value;

use super::table::Column;

/// A head line and one line.
pub fn object(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let head: Vec<String> = entries.keys().map(|key| field(key)).collect();
            let line: Vec<String> = entries.values().map(|value| field(&plain(value))).collect();
            format!("{}\n{}\n", head.join(","), line.join(","))
        }
        other => format!("value\n{}\n", field(&plain(other))),
    }
}

/// A head line and a line for each item, raw values, unformatted.
pub fn table(items: &[Value], columns: &[Column]) -> String {
    let head: Vec<String> =
        columns.iter().map(|column| field(&column.title.to_lowercase().replace('-', "_"))).collect();
    let mut out = head.join(",") + "\n";
    for item in items {
        let line: Vec<String> =
            columns.iter().map(|column| field(&plain(item.pointer(&column.pointer).unwrap_or(&Value::Null)))).collect();
        out += &(line.join(",") + "\n");
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        let columns = [Column::new("NAME", "/name"), Column::new("READ-ONLY", "/x")];
        let text = table(&[json!({ "name": "a,\"b\"", "x": true }), json!({ "name": "c" })], &columns);
        assert_eq!(text, "name,read_only\n\"a,\"\"b\"\"\",true\nc,\n");
        assert_eq!(object(&json!({ "a": 1, "b": [1, 2] })), "a,b\n1,\"[1,2]\"\n");
    }
}
