//! etcd's answers, in the store's words.

use std::cmp::Ordering;

use bytes::Bytes;
use store::{KeyValue, LeaseId, Op, OpAnswer, Range, RangeAnswer, Revision, SortBy, SortOrder, Txn, TxnAnswer};

use super::{Strange, ask};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::mvccpb;

/// etcd counts from 0 up.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn revision(number: i64) -> Revision {
    Revision(count(number))
}

pub(crate) fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: revision(kv.create_revision),
        mod_revision: revision(kv.mod_revision),
        version: count(kv.version),
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    }
}

fn newest(header: Option<&pb::ResponseHeader>) -> Result<Revision, Strange> {
    header.map(|header| revision(header.revision)).ok_or(Strange::Lacks("header"))
}

pub(crate) fn range(asked: &Range, answer: pb::RangeResponse) -> Result<RangeAnswer, Strange> {
    let revision = newest(answer.header.as_ref())?;
    let mut items: Vec<KeyValue> = answer.kvs.into_iter().map(key_value).collect();
    let mut more = answer.more;
    if let Some(sort) = ask::sorted_here(asked) {
        // Stable, so that equal rows stay in key order in both directions.
        items.sort_by(|a, b| match sort.order {
            SortOrder::Ascend => order(sort.by, a, b),
            SortOrder::Descend => order(sort.by, b, a),
        });
        if asked.limit > 0 && items.len() > asked.limit {
            items.truncate(asked.limit);
            more = true;
        }
        if asked.keys_only {
            for kv in &mut items {
                kv.value = Bytes::new();
            }
        }
    }
    Ok(RangeAnswer { revision, items, count: count(answer.count), more })
}

fn order(by: SortBy, a: &KeyValue, b: &KeyValue) -> Ordering {
    match by {
        SortBy::Key => a.key.cmp(&b.key),
        SortBy::Version => a.version.cmp(&b.version),
        SortBy::Create => a.create_revision.cmp(&b.create_revision),
        SortBy::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortBy::Value => a.value.cmp(&b.value),
    }
}

/// Nested answers of etcd do not say their revision: it is the one before the transaction until something was changed.
pub(crate) fn txn(asked: &Txn, answer: pb::TxnResponse) -> Result<TxnAnswer, Strange> {
    let after = newest(answer.header.as_ref())?;
    let changed = answer.responses.iter().any(changes);
    let mut now = if changed { after.before() } else { after };
    branch(asked, answer, &mut now, after)
}

fn changes(answer: &pb::ResponseOp) -> bool {
    match &answer.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(answer)) => answer.deleted > 0,
        Some(Response::ResponseTxn(answer)) => answer.responses.iter().any(changes),
        Some(Response::ResponseRange(_)) | None => false,
    }
}

fn branch(asked: &Txn, answer: pb::TxnResponse, now: &mut Revision, after: Revision) -> Result<TxnAnswer, Strange> {
    let ops = if answer.succeeded { &asked.then } else { &asked.otherwise };
    if ops.len() != answer.responses.len() {
        return Err(Strange::Other);
    }
    let mut answers = Vec::with_capacity(ops.len());
    for (op, answer) in ops.iter().zip(answer.responses) {
        if changes(&answer) && !matches!(op, Op::Txn(_)) {
            *now = after;
        }
        answers.push(match (op, answer.response.ok_or(Strange::Lacks("part"))?) {
            (Op::Put { .. }, Response::ResponsePut(answer)) => {
                OpAnswer::Put { previous: answer.prev_kv.map(key_value) }
            }
            (Op::Delete { .. }, Response::ResponseDeleteRange(answer)) => OpAnswer::Delete {
                deleted: count(answer.deleted),
                previous: answer.prev_kvs.into_iter().map(key_value).collect(),
            },
            (Op::Range(asked), Response::ResponseRange(answer)) => OpAnswer::Range(range(asked, answer)?),
            (Op::Txn(asked), Response::ResponseTxn(answer)) => OpAnswer::Txn(branch(asked, answer, now, after)?),
            _ => return Err(Strange::Other),
        });
    }
    Ok(TxnAnswer { revision: *now, succeeded: answer.succeeded, answers })
}
