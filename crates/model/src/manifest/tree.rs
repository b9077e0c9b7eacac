//! A manifest before its meaning: values with the place they were written at.

use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{Code, Error};

/// One value. `at` is the byte offset of its key, or of itself inside a list; `None` when it came as JSON.
#[derive(Debug)]
pub(super) struct Node {
    pub at: Option<usize>,
    pub value: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    Null,
    Text(String),
    Whole(i64),
    Real(f64),
    Flag(bool),
    Time(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for a sentence: `a text`, `a whole number`.
    pub fn noun(&self) -> &'static str {
        match self.value {
            Form::Null => "nothing",
            Form::Text(_) => "a text",
            Form::Whole(_) => "a whole number",
            Form::Real(number) if !number.is_finite() => "not finite",
            Form::Real(_) => "a number with a fraction",
            Form::Flag(_) => "true or false",
            Form::Time(_) => "a date or time",
            Form::List(_) => "a list",
            Form::Table(_) => "a table",
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Form::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        match &self.value {
            Form::Null => Value::Null,
            Form::Text(text) | Form::Time(text) => Value::String(text.clone()),
            Form::Whole(number) => Value::Number((*number).into()),
            Form::Real(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Form::Flag(flag) => Value::Bool(*flag),
            Form::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Form::Table(entries) => {
                Value::Object(entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect())
            }
        }
    }
}

pub(super) fn from_json(value: &Value) -> Node {
    let value = match value {
        Value::Null => Form::Null,
        Value::Bool(flag) => Form::Flag(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Form::Whole(whole),
            None => Form::Real(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => Form::Text(text.clone()),
        Value::Array(items) => Form::List(items.iter().map(from_json).collect()),
        // In JSON an absent value may be written as null.
        Value::Object(entries) => Form::Table(
            entries
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect(),
        ),
    };
    Node { at: None, value }
}

pub(super) fn from_toml(text: &str) -> Result<Node, Error> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or("it cannot be read").to_owned();
        Error::new(Code::InvalidArgument, format!("the manifest is not TOML: {message} ({})", place(text, at)))
            .hint(syntax_hint(text, at))
    })?;
    Ok(Node { at: Some(0), value: table_form(table.get_ref()) })
}

fn table_form(table: &DeTable<'_>) -> Form {
    Form::Table(
        table
            .iter()
            .map(|(key, value)| {
                let node = Node { at: Some(key.span().start), value: form(value.get_ref()) };
                (key.get_ref().to_string(), node)
            })
            .collect(),
    )
}

fn form(value: &DeValue<'_>) -> Form {
    match value {
        DeValue::String(text) => Form::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(whole) => Form::Whole(whole),
            Err(_) => Form::Real(f64::MAX),
        },
        DeValue::Float(number) => Form::Real(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Form::Flag(*flag),
        DeValue::Datetime(time) => Form::Time(time.to_string()),
        DeValue::Array(items) => Form::List(items.iter().map(item).collect()),
        DeValue::Table(table) => table_form(table),
    }
}

fn item(value: &Spanned<DeValue<'_>>) -> Node {
    Node { at: Some(value.span().start), value: form(value.get_ref()) }
}

/// The usual slips, by the line they are on.
fn syntax_hint(text: &str, at: usize) -> String {
    let line = text[..floor(text, at)].rsplit('\n').next().unwrap_or("").to_owned()
        + text[floor(text, at)..].split('\n').next().unwrap_or("");
    let line: String = line.trim().chars().take(120).collect();
    match line.split_once('=') {
        Some((key, value)) if !value.trim().is_empty() && value.trim().chars().all(|c| !"\"'[{".contains(c)) => {
            format!("texts stand in quotes: {} = \"{}\"", key.trim(), value.trim())
        }
        _ if line.contains(':') && !line.contains('=') => {
            let (key, value) = line.split_once(':').unwrap_or((&line, ""));
            format!("TOML writes `key = value`: {} = {}", key.trim(), value.trim())
        }
        _ => String::new(),
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// `line 7, column 3`, both from 1; columns count characters.
fn place(text: &str, at: usize) -> String {
    let before = &text[..floor(text, at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Adds the place of the error's field, or of the nearest thing around it that was written.
pub(super) fn locate(mut error: Error, root: &Node, text: &str) -> Error {
    let Some(field) = &error.field else { return error };
    let mut at = None;
    let mut node = root;
    let mut rest = field.as_str();
    while !rest.is_empty() {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let next = if let Some(inside) = rest.strip_prefix('[') {
            let (number, after) = inside.split_once(']').unwrap_or((inside, ""));
            rest = after.strip_prefix('.').unwrap_or(after);
            match &node.value {
                Form::List(items) => number.parse::<usize>().ok().and_then(|number| items.get(number)),
                _ => None,
            }
        } else {
            let found = node.get(&rest[..end]);
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
            found
        };
        let Some(found) = next else { break };
        node = found;
        at = node.at.or(at);
    }
    if let Some(at) = at {
        error.message = format!("{} ({})", error.message, place(text, at));
    }
    error
}
