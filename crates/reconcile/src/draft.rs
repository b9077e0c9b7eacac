//! A command as it is being decided: what it would write, and under which conditions.

use model::event::{Change, Event, SCHEMA_VERSION};
use model::{Code, Error, Id, Row, Scope, fold};
use serde_json::Value;
use store::{Compare, Op, Revision};

use crate::command::{Origin, Verb};
use crate::keys;
use crate::kind::{Admission, Admitted, Kind, Wish};
use crate::rows::{self, Stored};

/// A word that claims keep once their row is gone.
const RETIRED: &str = "retired/";

pub struct Draft<'a> {
    cx: Admission<'a>,
    pub origin: &'a Origin,
    pub when: Vec<Compare>,
    pub then: Vec<Op>,
    pub rows: Vec<Row>,
    /// Claims that must be free, so that a lost race can say which one was taken.
    pub claims: Vec<String>,
    pub now_ms: u64,
    /// The newest revision among the rows that were looked at.
    pub read: Revision,
}

impl<'a> Draft<'a> {
    pub fn new(cx: Admission<'a>, origin: &'a Origin) -> Self {
        Self {
            cx,
            origin,
            when: Vec::new(),
            then: Vec::new(),
            rows: Vec::new(),
            claims: Vec::new(),
            now_ms: cx.now_ms,
            read: Revision::ZERO,
        }
    }

    pub async fn add(&mut self, verb: &Verb) -> Result<(), Error> {
        match verb {
            Verb::Create { kind, scope, name, spec, owner } => {
                self.create(kind, scope, name, spec.clone(), owner.clone()).await
            }
            Verb::SetSpec { id, spec, if_version } => self.set_spec(id, spec.clone(), *if_version).await,
            Verb::Assign { id, node } => {
                let stored = self.existing(id, None).await?;
                if stored.row.node.as_ref() == Some(node) {
                    self.rows.push(stored.row);
                    return Ok(());
                }
                self.change(stored, Change::Assigned { node: node.clone() })
            }
            Verb::Observe { id, generation, phase, reason, status } => {
                let stored = self.existing(id, None).await?;
                let row = &stored.row;
                if *generation < row.observed_generation {
                    self.rows.push(stored.row);
                    return Ok(());
                }
                let mut reason = reason.clone();
                if let Some(reason) = &mut reason {
                    let before = row.reason.as_ref().filter(|before| before.code == reason.code);
                    reason.since_ms = before.map_or(self.cx.now_ms, |before| before.since_ms);
                }
                let same = *generation == row.observed_generation
                    && *phase == row.phase
                    && reason == row.reason
                    && *status == row.status;
                if same {
                    self.rows.push(stored.row);
                    return Ok(());
                }
                let status = status.clone();
                let change = Change::Observed { generation: *generation, phase: phase.clone(), reason, status };
                self.change(stored, change)
            }
            Verb::Delete { id, if_version } => {
                let stored = self.existing(id, *if_version).await?;
                if stored.row.deleting() {
                    self.rows.push(stored.row);
                    return Ok(());
                }
                let below = rows::below(&**self.cx.door.store(), &stored.row).await?;
                self.kind(&stored.row.kind)?.admit_delete(&stored.row, &below)?;
                self.change(stored, Change::DeleteRequested)
            }
            Verb::Remove { id } => {
                let stored = self.existing(id, None).await?;
                self.remove(stored)
            }
        }
    }

    fn kind(&self, name: &str) -> Result<&'a std::sync::Arc<dyn Kind>, Error> {
        let known = self.cx.door.registry().get(name);
        known.ok_or_else(|| Error::new(Code::NotFound, format!("there is no kind `{name}`")))
    }

    async fn existing(&mut self, id: &Id, if_version: Option<u64>) -> Result<Stored, Error> {
        let stored = rows::get(&**self.cx.door.store(), id).await?.ok_or_else(|| Error::not_found(id))?;
        self.read = self.read.max(stored.revision);
        let found = stored.row.version;
        match if_version {
            Some(expected) if expected != found => Err(Error::new(
                Code::VersionConflict,
                format!("{id} is at version {found}, not {expected}: someone else changed it"),
            )
            .hint("read it again and decide anew")),
            _ => Ok(stored),
        }
    }

    async fn create(
        &mut self,
        kind_name: &str,
        scope: &Scope,
        name: &str,
        spec: Value,
        owner: Option<Id>,
    ) -> Result<(), Error> {
        let kind = self.kind(kind_name)?;
        let contract = kind.contract();
        if !contract.levels.contains(&scope.level()) {
            let levels: Vec<_> = contract.levels.iter().map(|level| level.noun()).collect();
            let message =
                format!("a {kind_name} lives in: {}; this scope is: {}", levels.join(", "), scope.level().noun());
            return Err(Error::invalid("scope", message));
        }
        self.require_scope(scope).await?;
        let id = Id::new(contract.prefix);
        let wish = Wish { id: &id, scope, name, spec, before: None };
        let admitted = kind.admit(self.cx, wish).await?;
        let name = admitted.name.as_deref().unwrap_or(name);
        model::name::check("name", name)?;
        let mut claims = admitted.claims.clone();
        claims.push(keys::name_claim(scope, kind_name, name));
        for claim in &claims {
            self.when.push(Compare::missing(keys::claim(claim)));
            self.then.push(Op::put(keys::claim(claim), id.to_string()));
        }
        self.claims.extend(claims.iter().cloned());
        let key = keys::row(scope, kind_name, &id);
        self.then.push(Op::put(keys::index(&id), key.clone()));
        self.seal(&id, &admitted);
        let change = Change::Created { name: name.to_owned(), spec: admitted.spec, owner, claims };
        let event = self.event(kind_name, scope, &id, 1, change);
        let row = fold::apply(None, &event).map_err(|error| Error::internal(error.to_string()))?;
        let row = row.ok_or_else(|| Error::internal("a created row is there"))?;
        self.when.push(Compare::missing(key.clone()));
        self.write(key, row, &event)
    }

    /// The rows that name `scope` must be there and stay, or the new row would be without its tenant.
    async fn require_scope(&mut self, scope: &Scope) -> Result<(), Error> {
        let Some(last) = scope.last() else { return Ok(()) };
        let parent = rows::get(&**self.cx.door.store(), last).await?;
        let parent = parent.filter(|parent| parent.row.inner_scope() == *scope);
        let parent = parent.ok_or_else(|| Error::not_found(format!("scope {last}")))?;
        if parent.row.deleting() {
            let message = format!("{} {} is being removed", parent.row.kind, parent.row.name);
            return Err(Error::new(Code::Conflict, message));
        }
        self.when.push(Compare::mod_is(parent.key, parent.revision));
        Ok(())
    }

    async fn set_spec(&mut self, id: &Id, spec: Value, if_version: Option<u64>) -> Result<(), Error> {
        let stored = self.existing(id, if_version).await?;
        let row = &stored.row;
        if row.deleting() {
            return Err(Error::new(Code::Conflict, format!("{} {} is being removed", row.kind, row.name)));
        }
        let wish = Wish { id, scope: &row.scope, name: &row.name, spec, before: Some(row) };
        let admitted = self.kind(&row.kind)?.admit(self.cx, wish).await?;
        if admitted.spec == row.spec && admitted.sealed.is_none() {
            self.rows.push(stored.row);
            return Ok(());
        }
        self.seal(id, &admitted);
        self.change(stored, Change::SpecSet { spec: admitted.spec })
    }

    fn seal(&mut self, id: &Id, admitted: &Admitted) {
        if let Some((version, content)) = &admitted.sealed {
            self.then.push(Op::put(keys::sealed(id, *version), content.clone()));
        }
    }

    fn remove(&mut self, stored: Stored) -> Result<(), Error> {
        let row = stored.row;
        let event = self.event(&row.kind, &row.scope, &row.id, row.version + 1, Change::Deleted);
        self.when.push(Compare::mod_is(stored.key.clone(), stored.revision));
        self.then.push(Op::delete(stored.key));
        self.then.push(Op::delete(keys::index(&row.id)));
        self.then.push(Op::delete_prefix(keys::sealed_below(&row.id)));
        for claim in &row.claims {
            // A claim under `retired/` outlives its row: its number is never given out again.
            if !claim.starts_with(RETIRED) {
                self.then.push(Op::delete(keys::claim(claim)));
            }
        }
        self.put_event(&event)?;
        self.rows.push(row);
        Ok(())
    }

    fn change(&mut self, stored: Stored, change: Change) -> Result<(), Error> {
        let row = &stored.row;
        let event = self.event(&row.kind, &row.scope, &row.id, row.version + 1, change);
        let next = fold::apply(Some(row), &event).map_err(|error| Error::internal(error.to_string()))?;
        let next = next.ok_or_else(|| Error::internal("a changed row is there"))?;
        self.when.push(Compare::mod_is(stored.key.clone(), stored.revision));
        self.write(stored.key, next, &event)
    }

    fn write(&mut self, key: bytes::Bytes, row: Row, event: &Event) -> Result<(), Error> {
        let value = serde_json::to_vec(&row).map_err(|error| Error::internal(error.to_string()))?;
        self.then.push(Op::put(key, value));
        self.put_event(event)?;
        self.rows.push(row);
        Ok(())
    }

    fn put_event(&mut self, event: &Event) -> Result<(), Error> {
        let value = serde_json::to_vec(event).map_err(|error| Error::internal(error.to_string()))?;
        let key = keys::event(&event.scope, &event.row, event.version);
        // The guard on the row's revision already orders writers; this one makes the log itself append-only.
        self.when.push(Compare::missing(key.clone()));
        self.then.push(Op::put(key, value));
        Ok(())
    }

    fn event(&self, kind: &str, scope: &Scope, row: &Id, version: u64, payload: Change) -> Event {
        let origin = self.origin;
        Event {
            id: Id::new(model::id::EVENT),
            sequence: 0,
            time_ms: self.cx.now_ms,
            actor: origin.actor.clone(),
            scope: scope.clone(),
            request_id: origin.request_id.clone(),
            idempotency_key: origin.idempotency_key.clone(),
            kind: kind.to_owned(),
            row: row.clone(),
            version,
            event_type: format!("{kind}.{}", payload.verb()),
            schema_version: SCHEMA_VERSION,
            correlation: origin.correlation.clone().unwrap_or_else(|| origin.request_id.clone()),
            causation: origin.causation.clone(),
            payload,
        }
    }
}
