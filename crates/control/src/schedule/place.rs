//! Which row goes where. Pure: the same rows give the same decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Id, Reason, Row};
use reconcile::kind::Demand;
use reconcile::{Place, Registry, Table};

/// CPU may be promised this many times over; memory only once.
const CPU_OVERCOMMIT: u64 = 4;

/// What is to become of a row that has no node.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Assign(Id),
    /// No node takes it, and the row does not say so yet.
    Refuse(Reason),
    /// It is to go, and no node has anything of it.
    Remove,
}

/// A row that takes others.
struct Node<'a> {
    row: &'a Row,
    capacity: Demand,
    used: Demand,
}

impl Node<'_> {
    fn free(&self) -> u64 {
        self.capacity.memory_bytes.saturating_sub(self.used.memory_bytes)
    }

    /// Less is better: CPU within the overcommit first, then the emptier node. The order of nodes breaks ties.
    fn burden(&self, demand: Demand) -> (bool, u128) {
        let cpu = self.used.cpu_milli.saturating_add(demand.cpu_milli);
        let crowded = cpu > self.capacity.cpu_milli.saturating_mul(CPU_OVERCOMMIT);
        let memory = u128::from(self.used.memory_bytes) + u128::from(demand.memory_bytes);
        (crowded, memory * 1_000_000 / u128::from(self.capacity.memory_bytes.max(1)))
    }
}

/// Decides on every row without a node, in order of id; each decision counts on those before it.
pub fn place(table: &Table, registry: &Registry) -> Vec<(Arc<Row>, Decision)> {
    let mut nodes: BTreeMap<&Id, Node<'_>> = BTreeMap::new();
    for row in table.iter().filter(|row| !row.deleting()) {
        if let Some(capacity) = registry.get(&row.kind).and_then(|kind| kind.capacity(row)) {
            nodes.insert(&row.id, Node { row, capacity, used: Demand::default() });
        }
    }
    for row in table.iter() {
        // What is being removed still holds its memory.
        let Some(node) = row.node.as_ref().and_then(|node| nodes.get_mut(node)) else { continue };
        if let Some(demand) = registry.get(&row.kind).and_then(|kind| kind.demand(row)) {
            add(&mut node.used, demand);
        }
    }
    let mut decisions = Vec::new();
    for row in table.iter() {
        let Some(kind) = registry.get(&row.kind) else { continue };
        let nowhere = row.node.as_ref().is_none_or(|node| table.get(node).is_none());
        if row.deleting() && nowhere && kind.contract().place == Place::AssignedNode {
            decisions.push((row.clone(), Decision::Remove));
            continue;
        }
        if row.node.is_some() || row.deleting() {
            continue;
        }
        let Some(demand) = kind.demand(row) else { continue };
        let fitting = nodes.values_mut().filter(|node| node.free() >= demand.memory_bytes);
        match fitting.min_by_key(|node| node.burden(demand)) {
            Some(node) => {
                add(&mut node.used, demand);
                decisions.push((row.clone(), Decision::Assign(node.row.id.clone())));
            }
            None => {
                let reason = refusal(demand, nodes.values());
                let said = row.current() && row.reason.as_ref().is_some_and(|before| before.same(&reason));
                if !said {
                    decisions.push((row.clone(), Decision::Refuse(reason)));
                }
            }
        }
    }
    decisions
}

fn add(used: &mut Demand, demand: Demand) {
    used.memory_bytes = used.memory_bytes.saturating_add(demand.memory_bytes);
    used.cpu_milli = used.cpu_milli.saturating_add(demand.cpu_milli);
}

fn refusal<'a>(demand: Demand, nodes: impl Iterator<Item = &'a Node<'a>>) -> Reason {
    let needs = gibibytes(demand.memory_bytes);
    // The first of those with the most free memory.
    let best = nodes.fold(None::<&Node<'_>>, |best, node| match best {
        Some(best) if best.free() >= node.free() => Some(best),
        _ => Some(node),
    });
    match best {
        None => Reason::fault(
            "no_nodes_active",
            format!("it needs {needs}; no node takes work"),
            "start a node, or add one: vt join",
        ),
        Some(node) => Reason::fault(
            "no_capacity_memory",
            format!("it needs {needs}; the best node, {}, has {} free", node.row.name, gibibytes(node.free())),
            "ask for less, remove something, or add a node: vt join",
        ),
    }
}

/// One decimal, rounded down, so that what is free is never shown as more than it is.
fn gibibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / u128::from(model::unit::GIB);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
