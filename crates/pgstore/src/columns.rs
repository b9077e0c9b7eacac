//! A difference as the database takes it: column by column, in one statement.

use store::EventKind;
use tokio_postgres::types::ToSql;

use crate::draft::Difference;
use crate::sql;

/// Parameters of [`sql::WRITE`].
pub struct Columns<'d> {
    gone_revisions: Vec<i64>,
    gone_places: Vec<i32>,
    gone_keys: Vec<&'d [u8]>,
    gone_at: Vec<i64>,
    revisions: Vec<i64>,
    places: Vec<i32>,
    keys: Vec<&'d [u8]>,
    values: Vec<Option<&'d [u8]>>,
    created: Vec<i64>,
    versions: Vec<i64>,
    leases: Vec<Option<i64>>,
    ended: Vec<Option<i64>>,
}

impl<'d> Columns<'d> {
    pub fn of(difference: &'d Difference) -> Self {
        let (gone, written) = (&difference.ended, &difference.written);
        Self {
            gone_revisions: gone.iter().map(|row| sql::number(row.revision.0)).collect(),
            gone_places: gone.iter().map(|row| row.nth).collect(),
            gone_keys: gone.iter().map(|row| &row.key[..]).collect(),
            gone_at: gone.iter().map(|row| sql::number(row.at.0)).collect(),
            revisions: written.iter().map(|row| sql::number(row.revision.0)).collect(),
            places: written.iter().map(|row| row.nth).collect(),
            keys: written.iter().map(|row| &row.kv.key[..]).collect(),
            values: written.iter().map(|row| (row.kind == EventKind::Put).then_some(&row.kv.value[..])).collect(),
            created: written.iter().map(|row| sql::number(row.kv.create_revision.0)).collect(),
            versions: written.iter().map(|row| sql::number(row.kv.version)).collect(),
            leases: written.iter().map(|row| row.kv.lease.map(|id| id.0)).collect(),
            ended: written.iter().map(|row| row.ended.map(|at| sql::number(at.0))).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 12] {
        [
            &self.gone_revisions,
            &self.gone_places,
            &self.gone_keys,
            &self.gone_at,
            &self.revisions,
            &self.places,
            &self.keys,
            &self.values,
            &self.created,
            &self.versions,
            &self.leases,
            &self.ended,
        ]
    }
}
