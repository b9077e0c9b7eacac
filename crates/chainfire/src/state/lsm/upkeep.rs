//! The two threads of a tree: one makes what is sealed durable, one merges tables.

use std::fs;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use lsm_tree::AbstractTree;
use lsm_tree::compaction::Leveled;
use store::Error;

use super::{Shared, fault};
use crate::fault::{contained, io_fault};

/// Wait before another try when the disk refused.
const RETRY: Duration = Duration::from_secs(2);

/// Runs of new tables that are merged into the levels below together.
const RUNS_MERGED: u8 = 4;

/// Merges after each other before the thread looks whether it should end; each makes progress.
const MERGES_MAX: usize = 64;

pub fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    let thread = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        let thread = Builder::new().name(name.into()).spawn(move || run(&shared));
        thread.map_err(|error| Error::storage("start the upkeep of the tree", error))
    };
    Ok(vec![thread("state flush", flush)?, thread("state merge", merge)?])
}

fn flush(shared: &Shared) {
    loop {
        {
            let mut todo = shared.todo.lock();
            while todo.sealed.is_empty() && !todo.stop {
                shared.changed.wait(&mut todo);
            }
            if todo.stop {
                return;
            }
        }
        let first_new = shared.tree.next_table_id();
        let flushed = contained(&shared.path, || {
            let _making = shared.making.read();
            let lock = shared.tree.get_flush_lock();
            shared.tree.flush(&lock, oldest(shared)).map_err(fault("write a table"))
        });
        match flushed {
            Ok(_) => settled(shared),
            Err(error) => failed(shared, first_new, error),
        }
    }
}

/// What nobody can see any more may go when it lies below this.
fn oldest(shared: &Shared) -> u64 {
    shared.seen.oldest().saturating_sub(1)
}

fn settled(shared: &Shared) {
    let mut todo = shared.todo.lock();
    let left = shared.tree.sealed_memtable_count();
    let gone = todo.sealed.len().saturating_sub(left);
    shared.parts.turn(&shared.tree, gone);
    if let Some(index) = todo.sealed.drain(..gone).next_back() {
        shared.durable.send_replace(index);
    }
    todo.problem = None;
    todo.merge = true;
    shared.counted(&todo);
    shared.changed.notify_all();
}

fn failed(shared: &Shared, first_new: u64, error: Error) {
    tracing::warn!(%error, path = %shared.path.display(), "changes could not be written down yet");
    if let Err(error) = sweep(shared, first_new) {
        tracing::warn!(%error, "what was left of a table could not be removed");
    }
    let mut todo = shared.todo.lock();
    todo.problem = Some(error);
    shared.changed.notify_all();
    if !todo.stop {
        shared.ending.wait_for(&mut todo, RETRY);
    }
}

/// Removes files from `first_new` on that no version of the tree names: a full disk needs the room.
fn sweep(shared: &Shared, first_new: u64) -> Result<(), Error> {
    let _making = shared.making.write();
    let version = shared.tree.current_version();
    let named: Vec<u64> = version.iter_tables().map(lsm_tree::Table::id).collect();
    let tables = fs::read_dir(shared.path.join("tables")).map_err(|error| io_fault("look at the tables", error))?;
    for table in tables {
        let table = table.map_err(|error| io_fault("look at the tables", error))?;
        let id = table.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        if id.is_some_and(|id| id >= first_new && !named.contains(&id)) {
            fs::remove_file(table.path()).map_err(|error| io_fault("remove an unfinished table", error))?;
        }
    }
    Ok(())
}

fn merge(shared: &Shared) {
    let strategy = Leveled::default().with_l0_threshold(RUNS_MERGED);
    let strategy = Arc::new(strategy.with_table_target_size(shared.options.table_bytes));
    loop {
        {
            let mut todo = shared.todo.lock();
            while !todo.merge && !todo.stop {
                shared.changed.wait(&mut todo);
            }
            if todo.stop {
                return;
            }
            todo.merge = false;
        }
        for _ in 0..MERGES_MAX {
            let (before, first_new) = (shared.tree.current_version().id(), shared.tree.next_table_id());
            let merged = contained(&shared.path, || {
                let _making = shared.making.read();
                shared.tree.compact(strategy.clone(), oldest(shared)).map_err(fault("merge tables"))
            });
            shared.parts.turn(&shared.tree, 0);
            shared.counted(&shared.todo.lock());
            shared.changed.notify_all();
            if let Err(error) = merged {
                failed(shared, first_new, error);
                shared.todo.lock().merge = true;
                break;
            }
            if shared.todo.lock().stop || shared.tree.current_version().id() == before {
                break;
            }
        }
    }
}
