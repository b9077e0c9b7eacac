//! The machine's own row.

use model::{Error, Id, Scope};
use reconcile::command::{Origin, Verb};
use reconcile::{Door, rows};
use serde_json::Value;

/// What a machine says of itself.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The kind of the machine's row.
    pub kind: &'static str,
    /// The machine's name, unique in the cloud.
    pub name: String,
    /// The row's spec: what it offers.
    pub spec: Value,
}

/// Finds or makes the machine's row and brings it up to date. Idempotent.
pub async fn register(door: &Door, offer: &Offer) -> Result<Id, Error> {
    let origin = || Origin::system(&format!("agent/{}", offer.name));
    let found = rows::list(&**door.store(), &Scope::CLOUD, offer.kind, None, 1, |row| row.name == offer.name).await?;
    let row = match found.rows.into_iter().next() {
        Some(row) => {
            let verb = Verb::SetSpec { id: row.id, spec: offer.spec.clone(), if_version: None };
            door.one(origin(), verb).await?.row()
        }
        None => {
            let (kind, name, spec) = (offer.kind.to_owned(), offer.name.clone(), offer.spec.clone());
            let verb = Verb::Create { kind, scope: Scope::CLOUD, name, spec, owner: None };
            door.one(origin(), verb).await?.row()
        }
    };
    // A machine realises its own row: it alone can say how it is.
    let verb = Verb::Assign { id: row.id.clone(), node: row.id };
    Ok(door.one(origin(), verb).await?.row().id)
}
