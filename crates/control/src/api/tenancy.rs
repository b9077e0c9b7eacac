//! What a token sees of what was asked for.

use iam::{Principal, Verb};
use model::{Error, Row, Scope};

use super::Cloud;

/// The part of a scope that a token may read.
#[derive(Debug)]
pub struct Seen {
    /// Rows at this scope and below are the token's.
    pub scope: Scope,
    /// The rows above the token's scope that name it, where they lie in what was asked for.
    pub above: Vec<Row>,
}

/// Cuts `asked` down to what the token sees: itself when it lies in the token's scope; the token's own part when it
/// lies above. Errors: `not_found` for anything beside, and for a scope that is not there.
pub async fn narrow(cloud: &Cloud, principal: &Principal, asked: &Scope) -> Result<Seen, Error> {
    if principal.scope.contains(asked) {
        exists(cloud, asked).await?;
        return Ok(Seen { scope: asked.clone(), above: Vec::new() });
    }
    if !asked.contains(&principal.scope) {
        return Err(missing(asked));
    }
    let mut above = Vec::new();
    for id in principal.scope.ids() {
        let Some(row) = cloud.door.get(id).await? else { continue };
        if asked.contains(&row.scope) && iam::authorise_row(principal, Verb::Read, &row).is_ok() {
            above.push(row);
        }
    }
    Ok(Seen { scope: principal.scope.clone(), above })
}

/// A scope is there when the row that names it is.
pub async fn exists(cloud: &Cloud, scope: &Scope) -> Result<(), Error> {
    let Some(last) = scope.last() else { return Ok(()) };
    let named = cloud.door.get(last).await?.is_some_and(|row| row.inner_scope() == *scope);
    if named { Ok(()) } else { Err(missing(scope)) }
}

pub fn missing(scope: &Scope) -> Error {
    Error { field: Some("scope".to_owned()), ..Error::not_found(format!("scope {scope}")) }
}
