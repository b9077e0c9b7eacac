//! Who asks, and what they may touch.

use model::{Code, Error, Id, Level, Row, Scope};

/// Someone who has shown a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's row.
    pub id: Id,
    pub name: String,
    /// Everything at this scope and below it is theirs; nothing else is.
    pub scope: Scope,
    pub read_only: bool,
    /// Milliseconds since the Unix epoch after which they are nobody.
    pub expires_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Read,
    Write,
}

/// Decides whether `principal` may do `verb` to what lives at `scope`.
///
/// Errors: `not_found` outside the principal's own scope, as if there were nothing; `denied` for a write with a
/// read-only token.
pub fn authorise(principal: &Principal, verb: Verb, scope: &Scope) -> Result<(), Error> {
    if !principal.scope.contains(scope) {
        return Err(Error::not_found("this"));
    }
    if verb == Verb::Write && principal.read_only {
        return Err(
            Error::new(Code::Denied, "this token may only read").hint("use a token that was made without --read-only")
        );
    }
    Ok(())
}

/// As [`authorise`], for a row. The rows that name the principal's own scope (its project, its org) may be read, though
/// they live above it: their ids are part of the scope it knows.
pub fn authorise_row(principal: &Principal, verb: Verb, row: &Row) -> Result<(), Error> {
    if !principal.scope.contains(&row.scope) && names_scope_of(row, principal) {
        return match verb {
            Verb::Read => Ok(()),
            Verb::Write => {
                let message = format!("{} {} is above the scope of this token", row.kind, row.name);
                Err(Error::new(Code::Denied, message).hint("use a token of a wider scope"))
            }
        };
    }
    authorise(principal, verb, &row.scope).map_err(|error| match error.code {
        Code::NotFound => Error::not_found(&row.id),
        _ => error,
    })
}

fn names_scope_of(row: &Row, principal: &Principal) -> bool {
    row.scope.level() != Level::Env && row.inner_scope().contains(&principal.scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope(ids: &[(&str, u128)]) -> Scope {
        ids.iter().fold(Scope::CLOUD, |scope, (prefix, bits)| scope.child(Id::from_bits(prefix, *bits)))
    }

    fn principal(scope: Scope, read_only: bool) -> Principal {
        Principal { id: Id::from_bits("tok", 1), name: "ci".into(), scope, read_only, expires_ms: None }
    }

    fn row(id: Id, scope: Scope) -> Row {
        serde_json::from_value(json!({
            "id": id, "kind": "thing", "name": "a", "scope": scope, "version": 1, "generation": 1, "spec": {},
            "observed_generation": 0, "phase": "pending", "created_ms": 0, "updated_ms": 0,
            "correlation": Id::from_bits("req", 1), "last_event": Id::from_bits("ev", 1),
        }))
        .unwrap()
    }

    /// (principal's scope, read only, row's scope) -> read, write
    #[test]
    fn the_decision_table() {
        let own = scope(&[("org", 1), ("prj", 1)]);
        let below = scope(&[("org", 1), ("prj", 1), ("app", 1)]);
        let beside = scope(&[("org", 1), ("prj", 2)]);
        let org = scope(&[("org", 1)]);
        let foreign = scope(&[("org", 2), ("prj", 1)]);
        let ok = || None;
        let code = |code| Some(code);
        let table = [
            (&own, false, &own, ok(), ok()),
            (&own, false, &below, ok(), ok()),
            (&own, false, &beside, code(Code::NotFound), code(Code::NotFound)),
            (&own, false, &org, code(Code::NotFound), code(Code::NotFound)),
            (&own, false, &Scope::CLOUD, code(Code::NotFound), code(Code::NotFound)),
            (&own, false, &foreign, code(Code::NotFound), code(Code::NotFound)),
            (&own, true, &own, ok(), code(Code::Denied)),
            (&own, true, &beside, code(Code::NotFound), code(Code::NotFound)),
            (&org, false, &beside, ok(), ok()),
            (&org, false, &foreign, code(Code::NotFound), code(Code::NotFound)),
            (&Scope::CLOUD, false, &foreign, ok(), ok()),
            (&Scope::CLOUD, true, &Scope::CLOUD, ok(), code(Code::Denied)),
        ];
        for (who, read_only, what, read, write) in table {
            let who = principal(who.clone(), read_only);
            assert_eq!(authorise(&who, Verb::Read, what).err().map(|error| error.code), read, "{who:?} reads {what}");
            assert_eq!(
                authorise(&who, Verb::Write, what).err().map(|error| error.code),
                write,
                "{who:?} writes {what}"
            );
        }
    }

    #[test]
    fn the_rows_that_name_ones_own_scope_are_seen_and_not_changed() {
        let who = principal(scope(&[("org", 1), ("prj", 1)]), false);
        let org = row(Id::from_bits("org", 1), Scope::CLOUD);
        let project = row(Id::from_bits("prj", 1), scope(&[("org", 1)]));
        for mine in [&org, &project] {
            assert!(authorise_row(&who, Verb::Read, mine).is_ok());
            assert_eq!(authorise_row(&who, Verb::Write, mine).unwrap_err().code, Code::Denied);
        }
        let other_project = row(Id::from_bits("prj", 2), scope(&[("org", 1)]));
        let node = row(Id::from_bits("node", 1), Scope::CLOUD);
        for foreign in [&other_project, &node] {
            for verb in [Verb::Read, Verb::Write] {
                assert_eq!(authorise_row(&who, verb, foreign).unwrap_err().code, Code::NotFound);
            }
        }
    }
}
