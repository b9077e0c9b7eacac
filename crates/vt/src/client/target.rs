//! Names to ids, each looked up once: the org, project, app and env that the settings name.

use model::{Code, Id, Level, Scope};
use tokio::sync::OnceCell;

use super::nouns::{self, NOUNS, Noun};
use super::{Api, Item};
use crate::config::Settings;
use crate::failure::Failure;

/// What the settings point at.
#[derive(Debug)]
pub struct Target<'a> {
    api: &'a Api,
    settings: &'a Settings,
    project: OnceCell<Scope>,
    app: OnceCell<Item>,
    env: OnceCell<Item>,
}

impl<'a> Target<'a> {
    pub fn new(api: &'a Api, settings: &'a Settings) -> Self {
        Self { api, settings, project: OnceCell::new(), app: OnceCell::new(), env: OnceCell::new() }
    }

    /// The row of `noun` named `name` exactly at `scope`; `name` may be its id.
    pub async fn named(&self, noun: Noun, scope: &Scope, name: &str) -> Result<Option<Item>, Failure> {
        if let Some(id) = id_of(noun, name) {
            return match self.api.show(noun, id.as_str()).await {
                Ok(item) => Ok(Some(item)),
                Err(failure) if failure.error.code == Code::NotFound => Ok(None),
                Err(failure) => Err(failure),
            };
        }
        let scope = scope.to_string();
        let query = [("scope", scope.as_str()), ("exact", "true"), ("name", name), ("limit", "1")];
        Ok(self.api.page(noun, &query).await?.items.into_iter().next())
    }

    async fn opened(&self, level: Level, scope: &Scope, name: &str) -> Result<Item, Failure> {
        let noun = nouns::opening(level).ok_or_else(|| Failure::new(Code::Internal, "the cloud has no name"))?;
        match self.named(noun, scope, name).await? {
            Some(item) => Ok(item),
            None => Err(self.missing(noun, scope, name).await),
        }
    }

    /// The failure for a name that is not there, with the nearest one that is.
    async fn missing(&self, noun: Noun, scope: &Scope, name: &str) -> Failure {
        let scope = scope.to_string();
        let known = self.api.page(noun, &[("scope", scope.as_str()), ("exact", "true"), ("limit", "200")]).await;
        let known: Vec<String> =
            known.map(|page| page.items.into_iter().map(|item| item.row.name).collect()).unwrap_or_default();
        let failure = Failure::new(Code::NotFound, format!("there is no {} `{name}`", noun.name));
        match model::manifest::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None if noun.name == "app" || noun.name == "env" => failure.hint("vt deploy   makes it"),
            None if known.is_empty() => failure.hint(format!("vt {} create NAME   makes one", noun.name)),
            None => failure.hint(format!("there is {}", known.join(", "))),
        }
    }

    /// The scope of the org.
    pub async fn org(&self) -> Result<Scope, Failure> {
        let own = self.own().await?;
        if let Some(scope) = own.at(Level::Org) {
            return Ok(scope);
        }
        let name = self.settings.get("org").unwrap_or("default");
        Ok(self.opened(Level::Org, &Scope::CLOUD, name).await?.row.inner_scope())
    }

    /// The token's own scope.
    pub async fn own(&self) -> Result<Scope, Failure> {
        let whoami = self.api.get("/v1/whoami", &[]).await?;
        let scope = whoami.get("scope").and_then(serde_json::Value::as_str).unwrap_or_default();
        scope.parse().map_err(|_| Failure::new(Code::Internal, "the answer names no scope"))
    }

    /// The scope of the project.
    pub async fn project(&self) -> Result<&Scope, Failure> {
        self.project
            .get_or_try_init(|| async {
                let own = self.own().await?;
                // A token of one project can mean no other.
                if let Some(scope) = own.at(Level::Project) {
                    return Ok(scope);
                }
                let org = match own.at(Level::Org) {
                    Some(org) => org,
                    None => {
                        let name = self.settings.get("org").unwrap_or("default");
                        self.opened(Level::Org, &Scope::CLOUD, name).await?.row.inner_scope()
                    }
                };
                let name = self.settings.get("project").unwrap_or("default");
                Ok(self.opened(Level::Project, &org, name).await?.row.inner_scope())
            })
            .await
    }

    pub async fn app(&self) -> Result<&Item, Failure> {
        let name = self.settings.app()?;
        self.app.get_or_try_init(|| async { self.opened(Level::App, self.project().await?, name).await }).await
    }

    pub async fn env(&self) -> Result<&Item, Failure> {
        let name = self.settings.get("env").unwrap_or("prod");
        self.env
            .get_or_try_init(|| async { self.opened(Level::Env, &self.app().await?.row.inner_scope(), name).await })
            .await
    }

    /// The app, made where it is missing. True when it was made.
    pub async fn app_or_create(&self, description: &str) -> Result<(&Item, bool), Failure> {
        let name = self.settings.app()?;
        let scope = self.project().await?;
        let spec = if description.is_empty() {
            serde_json::json!({})
        } else {
            serde_json::json!({ "description": description })
        };
        self.or_create(&self.app, Level::App, scope, name, spec).await
    }

    pub async fn env_or_create(&self) -> Result<(&Item, bool), Failure> {
        let scope = self.app().await?.row.inner_scope();
        let name = self.settings.get("env").unwrap_or("prod");
        self.or_create(&self.env, Level::Env, &scope, name, serde_json::json!({})).await
    }

    async fn or_create<'c>(
        &self,
        cell: &'c OnceCell<Item>,
        level: Level,
        scope: &Scope,
        name: &str,
        spec: serde_json::Value,
    ) -> Result<(&'c Item, bool), Failure> {
        let noun = nouns::opening(level).ok_or_else(|| Failure::new(Code::Internal, "the cloud has no name"))?;
        if let Some(item) = self.named(noun, scope, name).await? {
            return Ok((cell.get_or_init(|| async { item }).await, false));
        }
        let item = match self.api.create(noun, scope, name, &spec, &super::key()).await {
            Ok(item) => item,
            // Someone made it in the same moment.
            Err(failure) if failure.error.code == Code::Conflict => {
                let item = self.named(noun, scope, name).await?.ok_or(failure)?;
                return Ok((cell.get_or_init(|| async { item }).await, false));
            }
            Err(failure) => return Err(failure),
        };
        Ok((cell.get_or_init(|| async { item }).await, true))
    }

    /// The scope at which new rows of `level` are made.
    pub async fn scope(&self, level: Level) -> Result<Scope, Failure> {
        match level {
            Level::Cloud => Ok(Scope::CLOUD),
            Level::Org => self.org().await,
            Level::Project => self.project().await.cloned(),
            Level::App => Ok(self.app().await?.row.inner_scope()),
            Level::Env => Ok(self.env().await?.row.inner_scope()),
        }
    }

    /// The scope whose rows a list of `noun` shows: as narrow as the settings say, as wide as the noun needs.
    pub async fn list_scope(&self, noun: Noun) -> Result<Scope, Failure> {
        match noun.level {
            // Tokens live at several levels; the empty scope is everything that the asking one sees.
            _ if noun.name == "token" => Ok(Scope::CLOUD),
            Level::Cloud => Ok(Scope::CLOUD),
            Level::Org => self.org().await,
            Level::Project => self.project().await.cloned(),
            Level::App | Level::Env => {
                if self.settings.get("app").is_none() {
                    return self.project().await.cloned();
                }
                if noun.level == Level::Env && self.settings.explicit("env") {
                    return Ok(self.env().await?.row.inner_scope());
                }
                Ok(self.app().await?.row.inner_scope())
            }
        }
    }

    /// The row that people mean by `word`: an id, `KIND/NAME`, or a bare name that fits one row.
    pub async fn find(&self, word: &str) -> Result<(Noun, Item), Failure> {
        if let Ok(id) = word.parse::<Id>() {
            let noun = nouns::find(id.prefix()).ok_or_else(|| unknown_kind(id.prefix()))?;
            return Ok((noun, self.api.show(noun, id.as_str()).await?));
        }
        if let Some((kind, name)) = word.split_once('/') {
            let noun = nouns::find(kind).ok_or_else(|| unknown_kind(kind))?;
            return Ok((noun, self.find_of(noun, name).await?));
        }
        let mut found: Vec<(Noun, Item)> = Vec::new();
        for noun in NOUNS {
            // Rows below an app are looked for only where an app is meant; one that is not there holds nothing.
            if noun.level >= Level::App && self.settings.get("app").is_none() {
                continue;
            }
            match self.within(noun, word).await {
                Ok(items) => found.extend(items.into_iter().map(|item| (noun, item))),
                Err(failure) if failure.error.code == Code::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        match found.len() {
            0 => Err(Failure::new(Code::NotFound, format!("nothing here is named `{word}`"))
                .hint("vt status   shows what there is; -a APP and -e ENV say where to look")),
            1 => Ok(found.remove(0)),
            _ => {
                let words: Vec<String> = found
                    .iter()
                    .map(|(noun, item)| format!("{}/{} ({})", noun.name, item.row.name, item.row.id))
                    .collect();
                Err(Failure::usage(format!("`{word}` fits more than one"))
                    .hint(format!("say which: {}", words.join(", "))))
            }
        }
    }

    /// The row of `noun` by its name or id.
    pub async fn find_of(&self, noun: Noun, name: &str) -> Result<Item, Failure> {
        if let Some(id) = id_of(noun, name) {
            return self.api.show(noun, id.as_str()).await;
        }
        let mut items = self.within(noun, name).await?;
        match items.len() {
            0 => {
                let scope = self.list_scope(noun).await?;
                let hint = format!("vt {} list   shows what there is", noun.name);
                let near = self.near(noun, &scope, name).await;
                Err(Failure::new(Code::NotFound, format!("there is no {} `{name}` here", noun.name))
                    .hint(near.map_or(hint, |near| format!("did you mean `{near}`?"))))
            }
            1 => Ok(items.remove(0)),
            _ => {
                let ids: Vec<String> = items.iter().map(|item| item.row.id.to_string()).collect();
                Err(Failure::usage(format!("more than one {} is named `{name}`", noun.name))
                    .hint(format!("say which by id: {}", ids.join(", "))))
            }
        }
    }

    async fn near(&self, noun: Noun, scope: &Scope, name: &str) -> Option<String> {
        let scope = scope.to_string();
        let page = self.api.page(noun, &[("scope", scope.as_str()), ("limit", "200")]).await.ok()?;
        let names: Vec<String> = page.items.into_iter().map(|item| item.row.name).collect();
        model::manifest::nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
    }

    /// Rows of `noun` with this name where a list would look; in the env where the same name lives in several.
    async fn within(&self, noun: Noun, name: &str) -> Result<Vec<Item>, Failure> {
        let scope = self.list_scope(noun).await?;
        let text = scope.to_string();
        let mut items = self.api.page(noun, &[("scope", text.as_str()), ("name", name), ("limit", "50")]).await?.items;
        if items.len() > 1 && noun.level == Level::Env && self.settings.get("app").is_some() {
            let env = self.env().await?.row.inner_scope();
            let here: Vec<Item> = items.iter().filter(|item| item.row.scope == env).cloned().collect();
            if !here.is_empty() {
                items = here;
            }
        }
        Ok(items)
    }
}

fn unknown_kind(kind: &str) -> Failure {
    let near = model::manifest::nearest(kind, NOUNS.iter().map(|noun| noun.name));
    let failure = Failure::usage(format!("`{kind}` is not a kind"));
    match near {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(NOUNS.map(|noun| noun.name).join(", ")),
    }
}

fn id_of(noun: Noun, text: &str) -> Option<Id> {
    text.parse::<Id>().ok().filter(|id| id.prefix() == noun.prefix)
}
