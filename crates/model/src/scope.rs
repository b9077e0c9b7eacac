//! org -> project -> app -> env. Every row lives at one scope, and its key begins with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{Id, InvalidId};

/// How deep a scope goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The whole cloud: orgs and nodes live here.
    Cloud,
    Org,
    Project,
    App,
    Env,
}

impl Level {
    pub const ALL: [Level; 5] = [Level::Cloud, Level::Org, Level::Project, Level::App, Level::Env];

    /// The kind whose id names a scope of this level; the cloud has none.
    pub const fn noun(self) -> &'static str {
        match self {
            Level::Cloud => "cloud",
            Level::Org => "org",
            Level::Project => "project",
            Level::App => "app",
            Level::Env => "env",
        }
    }
}

/// A path of ids from the org down; empty for the cloud itself. At most four.
///
/// On the wire it is the ids joined by `/`; the cloud is the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Vec<Id>);

impl Scope {
    pub const CLOUD: Scope = Scope(Vec::new());

    pub fn level(&self) -> Level {
        Level::ALL[self.0.len()]
    }

    /// The scope that `id` opens below this one.
    ///
    /// # Panics
    /// When this is already an env: nothing lives below.
    pub fn child(&self, id: Id) -> Scope {
        assert!(self.0.len() < 4, "an env has no scopes below it");
        let mut path = self.0.clone();
        path.push(id);
        Scope(path)
    }

    /// The scope one level up; the cloud is its own parent.
    pub fn parent(&self) -> Scope {
        Scope(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// This scope cut to `level`, or `None` when it does not reach that deep.
    pub fn at(&self, level: Level) -> Option<Scope> {
        let depth = level as usize;
        (depth <= self.0.len()).then(|| Scope(self.0[..depth].to_vec()))
    }

    /// The id of the org, project, app or env this scope runs through.
    pub fn id(&self, level: Level) -> Option<&Id> {
        (level as usize).checked_sub(1).and_then(|place| self.0.get(place))
    }

    /// The id that this scope itself is named by; the cloud has none.
    pub fn last(&self) -> Option<&Id> {
        self.0.last()
    }

    /// True when `other` is this scope or lies below it.
    pub fn contains(&self, other: &Scope) -> bool {
        other.0.starts_with(&self.0)
    }

    pub fn ids(&self) -> &[Id] {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, id) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("/")?;
            }
            f.write_str(id.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Scope {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Ok(Scope::CLOUD);
        }
        let path = text.split('/').map(str::parse).collect::<Result<Vec<Id>, _>>()?;
        if path.len() > 4 { Err(InvalidId(text.chars().take(64).collect())) } else { Ok(Scope(path)) }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Scope {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Ids of org, project, app, env joined by `/`; empty for the cloud.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_contains_what_lies_below_it_and_nothing_beside_it() {
        let org = Scope::CLOUD.child(Id::from_bits("org", 1));
        let project = org.child(Id::from_bits("prj", 2));
        let other = Scope::CLOUD.child(Id::from_bits("org", 3));
        assert!(Scope::CLOUD.contains(&project) && org.contains(&project) && org.contains(&org));
        assert!(!project.contains(&org) && !other.contains(&project));
        assert_eq!(project.to_string().parse::<Scope>().unwrap(), project);
        assert_eq!(project.at(Level::Org), Some(org.clone()));
        assert_eq!(project.at(Level::Env), None);
        assert_eq!(project.id(Level::Project), Some(&Id::from_bits("prj", 2)));
        assert_eq!(Scope::CLOUD.parent(), Scope::CLOUD);
        assert_eq!(project.level(), Level::Project);
    }
}
