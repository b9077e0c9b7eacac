//! The first start: an org, a project, an admin token. Later starts find them.

use std::path::Path;

use model::{Error, Id, Scope};
use reconcile::command::{Origin, Verb};
use reconcile::{Door, rows};
use serde_json::{Value, json};
use world::file;

/// Name of the first org and the first project.
pub const DEFAULT: &str = "default";
const ADMIN: &str = "admin";

/// Makes what is missing. Idempotent: a crash in the middle is mended by the next start.
pub async fn prepare(door: &Door, token_file: &Path) -> Result<(), Error> {
    let org = ensure(door, "org", &Scope::CLOUD, DEFAULT, json!({})).await?;
    let inside = Scope::CLOUD.child(org);
    ensure(door, "project", &inside, DEFAULT, json!({})).await?;
    let io = |error: std::io::Error| Error::internal(format!("{}: {error}", token_file.display()));
    let token = match file::read_optional(token_file).map_err(io)? {
        Some(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        None => {
            // The text is on disk before its hash is in the store: the other way round a crash would lock people out.
            let text = iam::token::generate();
            file::write_atomic(token_file, format!("{text}\n").as_bytes(), 0o600).map_err(io)?;
            text
        }
    };
    if iam::authenticate(door, &token).await.is_err() {
        let spec = json!({ "hash": iam::token::hash(&token) });
        let name = if find(door, "token", &Scope::CLOUD, ADMIN).await?.is_none() {
            ADMIN.to_owned()
        } else {
            format!("{ADMIN}-{}", world::random::hex(3))
        };
        create(door, "token", &Scope::CLOUD, &name, spec).await?;
    }
    Ok(())
}

async fn find(door: &Door, kind: &str, scope: &Scope, name: &str) -> Result<Option<Id>, Error> {
    let keep = |row: &model::Row| row.name == name && row.scope == *scope && !row.deleting();
    let page = rows::list(&**door.store(), scope, kind, None, 1, keep).await?;
    Ok(page.rows.into_iter().next().map(|row| row.id))
}

async fn create(door: &Door, kind: &str, scope: &Scope, name: &str, spec: Value) -> Result<Id, Error> {
    let verb = Verb::Create { kind: kind.into(), scope: scope.clone(), name: name.into(), spec, owner: None };
    Ok(door.one(Origin::system("first-start"), verb).await?.row().id)
}

async fn ensure(door: &Door, kind: &str, scope: &Scope, name: &str, spec: Value) -> Result<Id, Error> {
    match find(door, kind, scope, name).await? {
        Some(id) => Ok(id),
        None => create(door, kind, scope, name, spec).await,
    }
}
