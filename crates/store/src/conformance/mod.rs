//! What every engine must do, as one suite.
//!
//! ```ignore
//! store::conformance::suite!(async || Subject::new(Arc::new(Memory::new())));
//! ```
//!
//! gives one test for each case; [`run`] does them all in one. Every case gets an empty store. [`history`] drives random
//! histories at a store and at a model too plain to be wrong; it is deterministic.

pub mod compaction;
pub mod concurrency;
pub mod history;
pub mod kv;
pub mod lease;
pub mod linear;
pub mod model;
pub mod range;
pub mod txn;
pub mod watch;

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use crate::suite;
use crate::{Batch, Error, Key, KeyValue, Op, OpAnswer, Range, Revision, Store, Txn, TxnAnswer, WatchRequest, Watcher};

/// Long enough for the slowest machine; only a failing case waits for it.
pub const WAIT_MAX: Duration = Duration::from_mins(1);

/// An empty store under test, and what has to outlive it, such as its folder.
pub struct Subject {
    pub store: Arc<dyn Store>,
    _holding: Option<Box<dyn Any + Send>>,
}

impl Subject {
    pub fn new(store: impl Store) -> Self {
        Self { store: Arc::new(store), _holding: None }
    }

    pub fn holding(store: impl Store, guard: impl Any + Send) -> Self {
        Self { store: Arc::new(store), _holding: Some(Box::new(guard)) }
    }
}

/// For an engine that needs something which is not everywhere: `Err` says why there is nothing to test here.
impl From<Subject> for Result<Subject, String> {
    fn from(subject: Subject) -> Self {
        Ok(subject)
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Case = (&'static str, fn(Arc<dyn Store>) -> Running);

/// Every case with its name.
pub const CASES: &[Case] = crate::suite!(@all table {});

/// All cases, one after the other; panics with the name of the first that fails on standard error.
pub async fn run<F: Future<Output = Subject>>(open: impl Fn() -> F) {
    for (name, case) in CASES {
        let subject = open().await;
        let running = tokio::spawn(case(subject.store.clone()));
        if let Err(error) = running.await {
            panic!("case {name}: {error}");
        }
    }
}

/// Runs one case to its end in a runtime of its own; says so when there is nothing to run it on.
pub fn run_one<S: Into<Result<Subject, String>>, F: Future<Output = S>, C: Future<Output = ()>>(
    open: impl FnOnce() -> F,
    case: impl FnOnce(Arc<dyn Store>) -> C,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime for the case").block_on(async {
        match open().await.into() {
            Ok(subject) => case(subject.store.clone()).await,
            Err(reason) => println!("skipped: {reason}"),
        }
    });
}

/// One `#[test]` for each case. The argument is called for an empty store: `async || -> Subject`, or
/// `async || -> Result<Subject, String>` where a missing program makes the tests say that they are skipped.
#[macro_export]
macro_rules! suite {
    (@all $then:ident $argument:tt) => {
        $crate::suite! { @$then $argument
            kv an_empty_store_is_at_revision_one,
            kv a_put_is_read_back,
            kv puts_of_one_transaction_share_a_revision,
            kv what_changes_nothing_takes_no_revision,
            kv versions_count_and_start_again_after_a_delete,
            kv deletes_answer_what_they_deleted,
            kv any_bytes_are_a_key_and_a_value,
            kv a_past_revision_reads_as_it_was,
            range limits_say_whether_there_is_more,
            range counts_and_keys_come_without_the_rest,
            range every_sort_in_both_orders,
            range revision_bounds_choose_rows_and_not_the_count,
            range an_uncounted_read_finds_the_same_rows,
            range prefixes_end_where_they_should,
            range pages_of_a_past_revision_fit_together,
            range an_end_before_the_start_is_refused,
            txn every_comparison_with_every_operator,
            txn a_missing_key_compares_as_zero,
            txn one_of_two_branches_is_taken,
            txn comparisons_see_the_state_before_the_outermost,
            txn reads_see_the_writes_before_them,
            txn nested_transactions_answer_nested,
            txn a_key_changes_once,
            txn a_nested_put_may_be_deleted_by_a_later_sibling,
            txn requests_beyond_a_limit_are_refused,
            txn a_refused_transaction_changes_nothing,
            txn the_first_reason_to_refuse_is_told,
            txn a_transaction_as_large_as_allowed_is_one_revision,
            txn a_comparison_of_a_stretch_is_about_every_key_in_it,
            txn a_put_may_keep_the_value_or_the_lease,
            watch events_come_from_after_the_call,
            watch the_past_is_delivered_before_the_present,
            watch a_future_revision_is_waited_for,
            watch keys_ranges_and_everything,
            watch previous_rows_are_from_before_the_revision,
            watch revisions_come_whole_and_in_order,
            watch many_watchers_see_the_same,
            watch a_slow_watcher_misses_nothing,
            watch a_compacted_start_is_refused,
            watch a_watcher_that_fell_behind_compaction_is_told,
            watch a_dropped_watcher_disturbs_nobody,
            watch a_watch_that_can_see_nothing_is_refused,
            watch a_watcher_tells_how_far_it_has_come,
            watch a_watcher_that_finds_nothing_more_says_so,
            compaction reads_below_are_refused_and_the_rest_stays,
            compaction only_forward_and_not_into_the_future,
            compaction deleted_keys_leave_nothing_that_matters,
            compaction a_large_history_shrinks_while_reads_go_on,
            lease ids_are_chosen_or_given,
            lease revoking_deletes_the_keys_in_one_revision,
            lease the_last_put_decides_the_lease,
            lease an_unknown_lease_is_refused,
            lease a_lease_that_runs_out_takes_its_keys,
            lease a_life_sign_gives_the_full_time,
            lease leases_are_listed,
            concurrency increments_by_comparison_lose_nothing,
            concurrency revisions_have_no_gaps_and_watchers_see_each_once,
            concurrency moved_tokens_are_neither_lost_nor_doubled,
            history random_histories_agree_with_the_model,
        }
    };
    (@tests { $open:expr } $($module:ident $name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run_one($open, $crate::conformance::$module::$name);
            }
        )*
    };
    (@table {} $($module:ident $name:ident,)*) => {
        &[$((stringify!($name), |store| Box::pin($crate::conformance::$module::$name(store)))),*]
    };
    ($open:expr) => {
        $crate::suite! { @all tests { $open } }
    };
}

/// Shorter words for the cases.
async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    does(store, [Op::put(key.to_owned(), value.to_owned())]).await.revision
}

async fn delete(store: &Arc<dyn Store>, key: &str) -> Revision {
    does(store, [Op::delete(key.to_owned())]).await.revision
}

async fn does(store: &Arc<dyn Store>, ops: impl Into<Vec<Op>>) -> TxnAnswer {
    store.txn(Txn::of(ops)).await.expect("a transaction")
}

async fn get(store: &Arc<dyn Store>, key: &str) -> Option<KeyValue> {
    read(store, Range::key(key.to_owned())).await.into_iter().next()
}

async fn read(store: &Arc<dyn Store>, range: Range) -> Vec<KeyValue> {
    store.range(range).await.expect("a range").items
}

async fn keys(store: &Arc<dyn Store>, range: Range) -> Vec<String> {
    read(store, range).await.iter().map(|kv| text(&kv.key)).collect()
}

fn text(bytes: &Key) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn watching(store: &Arc<dyn Store>, request: WatchRequest) -> Watcher {
    store.watch(request).await.expect("a watch")
}

/// The next batch; a case never waits for ever.
async fn next(watcher: &mut Watcher) -> Batch {
    let next = tokio::time::timeout(WAIT_MAX, watcher.next()).await.expect("a batch in time");
    next.expect("no error of the watch").expect("the store is open")
}

async fn next_error(watcher: &mut Watcher) -> Error {
    tokio::time::timeout(WAIT_MAX, async {
        loop {
            match watcher.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the watch ended without an error"),
                Err(error) => return error,
            }
        }
    })
    .await
    .expect("an error in time")
}

fn range_of(answer: &OpAnswer) -> &crate::RangeAnswer {
    match answer {
        OpAnswer::Range(answer) => answer,
        other => panic!("not the answer of a range: {other:?}"),
    }
}
