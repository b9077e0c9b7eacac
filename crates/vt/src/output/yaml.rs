//! YAML 1.2 in block style, for values that JSON can say.

use serde_json::Value;

/// The value as a document, without the leading `---`.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => object(&mut out, entries, 0),
        Value::Array(items) if !items.is_empty() => array(&mut out, items, 0),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn object(out: &mut String, entries: &serde_json::Map<String, Value>, depth: usize) {
    for (place, (key, value)) in entries.iter().enumerate() {
        // The first key of an item stands on the dash's line.
        if place > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        out.push_str(&string(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                object(out, inner, depth + 1);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                array(out, inner, depth + 1);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn array(out: &mut String, items: &[Value], depth: usize) {
    for (place, item) in items.iter().enumerate() {
        if place > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => object(out, inner, depth + 1),
            Value::Array(inner) if !inner.is_empty() => array(out, inner, depth + 1),
            other => {
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// Plain where no reader could take it for something else; else quoted as JSON, which YAML reads the same.
fn string(text: &str) -> String {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./ ".contains(c))
        && !text.ends_with(' ')
        && !words.contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_values_stand_in_block_style() {
        let value = json!({
            "name": "web-1", "on": "no", "n": "1.4", "empty": [], "none": null,
            "items": [{ "a": 1, "b": ["x", "y: z"] }, [1, [2]], "s"], "more": { "k": { "l": true } },
        });
        insta::assert_snapshot!(text(&value), @r#"
        name: web-1
        "on": "no"
        "n": "1.4"
        empty: []
        none: null
        items:
          - a: 1
            b:
              - x
              - "y: z"
          - - 1
            - - 2
          - s
        more:
          k:
            l: true
        "#);
    }
}
