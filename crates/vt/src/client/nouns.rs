//! The kinds that the command line has words for. Columns and the rest come from the API.

use model::Level;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noun {
    pub name: &'static str,
    pub plural: &'static str,
    pub prefix: &'static str,
    /// The deepest level at which rows of it live.
    pub level: Level,
}

const fn noun(name: &'static str, plural: &'static str, prefix: &'static str, level: Level) -> Noun {
    Noun { name, plural, prefix, level }
}

/// In the order in which a bare name is looked up: what people mean most often comes first.
pub const NOUNS: [Noun; 12] = [
    noun("vm", "vms", "vm", Level::Env),
    noun("deploy", "deploys", "dep", Level::Env),
    noun("route", "routes", "rt", Level::Env),
    noun("secret", "secrets", "sb", Level::Env),
    noun("release", "releases", "rel", Level::App),
    noun("env", "envs", "env", Level::App),
    noun("app", "apps", "app", Level::Project),
    noun("keyspace", "keyspaces", "ks", Level::Project),
    noun("token", "tokens", "tok", Level::Project),
    noun("project", "projects", "prj", Level::Org),
    noun("org", "orgs", "org", Level::Cloud),
    noun("node", "nodes", "node", Level::Cloud),
];

/// By its singular, plural or id prefix.
pub fn find(word: &str) -> Option<Noun> {
    NOUNS.into_iter().find(|noun| noun.name == word || noun.plural == word || noun.prefix == word)
}

/// The noun that opens scopes of `level`.
pub fn opening(level: Level) -> Option<Noun> {
    find(level.noun())
}
