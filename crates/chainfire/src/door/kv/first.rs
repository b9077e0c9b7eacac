//! A limit together with a sort that has a target and no order: etcd takes the first rows in key order, one more than the
//! limit, and sorts those alone. With an order it sorts all rows first.

use bytes::Bytes;
use etcd::proto::etcdserverpb::RangeRequest;
use etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use store::{Range, RangeAnswer};

fn sorts_the_first(request: &RangeRequest) -> bool {
    let bounds =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    // Rows that are left out are left out before the limit counts, for which etcd reads all of them.
    request.limit > 0
        && request.sort_order == SortOrder::None as i32
        && request.sort_target() != SortTarget::Key
        && !request.count_only
        && bounds == [0; 4]
}

/// What to read for it.
pub fn widen(request: &RangeRequest, range: &mut Range) {
    if sorts_the_first(request) {
        range.limit = range.limit.saturating_add(1);
        range.sort = None;
        range.keys_only = request.keys_only && request.sort_target() != SortTarget::Value;
    }
}

/// Sorts what was read, and takes off what was too much.
pub fn cut(request: &RangeRequest, answer: &mut RangeAnswer) {
    if !sorts_the_first(request) {
        return;
    }
    match request.sort_target() {
        SortTarget::Key => {}
        SortTarget::Version => answer.items.sort_by_key(|kv| kv.version),
        SortTarget::Create => answer.items.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => answer.items.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => answer.items.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    answer.more = answer.items.len() > limit;
    answer.items.truncate(limit);
    if request.keys_only {
        for kv in &mut answer.items {
            kv.value = Bytes::new();
        }
    }
}
