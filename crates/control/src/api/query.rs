//! The query string, checked against the route's parameters.

use std::collections::BTreeMap;

use http::Uri;
use model::{Error, Id, Scope};

use super::nearest;
use crate::routes::{Form, Parameter, Route};

/// Characters of a wrong value that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// Parameters that were given, each known to the route and of its form.
#[derive(Debug, Default)]
pub struct Query {
    given: BTreeMap<&'static str, String>,
}

impl Query {
    pub fn read(route: &Route, uri: &Uri) -> Result<Self, Error> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Error::invalid("query", format!("the query string cannot be read: {error}")))?;
        let mut given = BTreeMap::new();
        for (name, value) in pairs.0 {
            let Some(parameter) = route.parameters.iter().find(|parameter| parameter.name == name) else {
                let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
                return Err(Error::invalid(shown.clone(), format!("there is no parameter `{shown}` here"))
                    .hint(nearest::hint(&name, route.parameters.iter().map(|parameter| parameter.name))));
            };
            check(parameter, &value)?;
            if given.insert(parameter.name, value).is_some() {
                return Err(Error::invalid(parameter.name, format!("parameter `{name}` is given twice")));
            }
        }
        Ok(Self { given })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub fn id(&self, name: &str) -> Option<Id> {
        self.text(name)?.parse().ok()
    }

    pub fn scope(&self) -> Scope {
        self.text("scope").and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// As a kind's stream takes them.
    pub fn object(&self) -> serde_json::Map<String, serde_json::Value> {
        self.given.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect()
    }
}

fn check(parameter: &Parameter, value: &str) -> Result<(), Error> {
    let name = parameter.name;
    let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    let refuse = |right: String| Err(Error::invalid(name, format!("`{name}` is `{shown}`; use {right}")));
    match parameter.form {
        Form::Text => Ok(()),
        Form::Flag if matches!(value, "true" | "false") => Ok(()),
        Form::Flag => refuse("true or false".to_owned()),
        Form::Number { min, max } => match value.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            _ if max == u64::MAX => refuse(format!("a whole number from {min}")),
            _ => refuse(format!("a whole number from {min} to {max}")),
        },
        Form::Id => value.parse::<Id>().map(drop).map_err(|error| Error::invalid(name, error.to_string())),
        Form::Scope => value.parse::<Scope>().map(drop).map_err(|error| {
            Error::invalid(name, error.to_string())
                .hint("a scope is the ids of org, project, app and env, joined by `/`")
        }),
        Form::OneOf(words) if words.contains(&value) => Ok(()),
        Form::OneOf(words) => refuse(words.join(" or ")),
    }
}
