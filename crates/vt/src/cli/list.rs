//! Lists of rows. Columns come from the API's own description of the kind.

use std::collections::BTreeMap;

use model::{Level, Scope};
use serde_json::Value;

use super::noun::{ListArgs, noun_of};
use super::session::Session;
use crate::client::nouns::Noun;
use crate::client::{Api, Target};
use crate::failure::{Failure, Outcome};
use crate::output::{Column, Format};

/// Levels whose names people need to tell rows of one list apart, with the noun that has the names.
const PLACES: [(Level, &str); 3] = [(Level::Project, "project"), (Level::App, "app"), (Level::Env, "env")];

pub async fn run(session: &Session, api: &Api, noun: Noun, args: &ListArgs) -> Outcome {
    let target = Target::new(api, &session.settings);
    let scope = if args.all { Scope::CLOUD } else { target.list_scope(noun).await? };
    let text = scope.to_string();
    let limit = args.limit.map(|limit| limit.to_string());
    let query: Vec<(&str, &str)> = [
        ("scope", Some(text.as_str())),
        ("phase", args.phase.as_deref()),
        ("owner", args.owner.as_deref()),
        ("limit", limit.as_deref()),
        ("cursor", args.cursor.as_deref()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect();
    let (mut items, next) = if limit.is_some() {
        let page = api.page(noun, &query).await?;
        (page.raw(), page.next)
    } else {
        (api.list(noun, &query).await?.into_iter().map(|item| item.raw).collect(), Value::Null)
    };
    // JSON has the scope in every row; people want names, and only where there is more than one place.
    let columns = if matches!(session.out.format, Format::Json | Format::Yaml) {
        Vec::new()
    } else {
        let mut columns = columns(api, noun).await?;
        if scope.level() < noun.level && !items.is_empty() {
            let names = names(api, &scope, noun).await?;
            for item in &mut items {
                item["place"] = Value::String(place(item["scope"].as_str().unwrap_or_default(), &scope, &names));
            }
            columns.insert(1, Column::new("IN", "/place"));
        }
        columns
    };
    session.out.list(&items, &next, &columns)?;
    if session.out.human() && items.is_empty() {
        session.out.note(format!("no {} here", noun.plural));
    }
    Ok(0)
}

async fn columns(api: &Api, noun: Noun) -> Result<Vec<Column>, Failure> {
    let kinds = api.get("/v1/kinds", &[]).await?;
    let kinds = kinds.get("items").unwrap_or(&kinds);
    let kind = kinds.as_array().and_then(|kinds| kinds.iter().find(|kind| kind["name"] == noun.name));
    let mut columns = vec![Column::new("NAME", "/name"), Column::new("ID", "/id")];
    for column in kind.and_then(|kind| kind["columns"].as_array()).into_iter().flatten() {
        if let (Some(title), Some(pointer)) = (column["title"].as_str(), column["pointer"].as_str()) {
            columns.push(Column::new(title, pointer));
        }
    }
    columns.push(Column::new("AGE", "/created_ms"));
    Ok(columns)
}

/// Names of the scopes between `scope` and the rows of `noun`, by id.
async fn names(api: &Api, scope: &Scope, noun: Noun) -> Result<BTreeMap<String, String>, Failure> {
    let mut names = BTreeMap::new();
    let text = scope.to_string();
    for (_, opens) in PLACES.into_iter().filter(|(level, _)| *level > scope.level() && *level <= noun.level) {
        let rows = api.list(noun_of(opens)?, &[("scope", text.as_str())]).await?;
        names.extend(rows.into_iter().map(|item| (item.row.id.to_string(), item.row.name)));
    }
    Ok(names)
}

/// Where a row lives, below `scope`, in names; `-` for the place itself.
fn place(row: &str, scope: &Scope, names: &BTreeMap<String, String>) -> String {
    let below = row.split('/').skip(scope.ids().len());
    let words: Vec<&str> = below.filter_map(|id| names.get(id).map(String::as_str)).collect();
    if words.is_empty() { "-".to_owned() } else { words.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Id;

    #[test]
    fn a_place_is_told_in_names_below_what_was_asked() {
        let [org, project, app, env] =
            [("org", 1), ("prj", 2), ("app", 3), ("env", 4)].map(|(prefix, bits)| Id::from_bits(prefix, bits));
        let scope = Scope::CLOUD.child(org).child(project);
        let deep = scope.child(app.clone()).child(env.clone());
        let names = BTreeMap::from([(app.to_string(), "shop".to_owned()), (env.to_string(), "prod".to_owned())]);
        assert_eq!(place(&deep.to_string(), &scope, &names), "shop/prod");
        assert_eq!(place(&deep.to_string(), &scope.child(app), &names), "prod");
        assert_eq!(place(&scope.to_string(), &scope, &names), "-");
    }
}
