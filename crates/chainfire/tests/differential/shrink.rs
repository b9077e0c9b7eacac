//! Makes a history that fails smaller while it still fails.

use etcd::proto::etcdserverpb as pb;
use pb::request_op::Request;

use crate::step::Step;

/// Each try plays a history at both servers.
const TRIES_MAX: usize = 600;

pub async fn shrink(steps: Vec<Step>, fails: impl AsyncFn(&[Step]) -> bool) -> Vec<Step> {
    let mut tries = 0;
    let steps = fewer(steps, &fails, &mut tries).await;
    let steps = smaller(steps, &fails, &mut tries).await;
    fewer(steps, &fails, &mut tries).await
}

/// Leaves out stretches of steps: halves first, single ones last.
async fn fewer(mut steps: Vec<Step>, fails: &impl AsyncFn(&[Step]) -> bool, tries: &mut usize) -> Vec<Step> {
    let mut length = steps.len().div_ceil(2);
    while length > 0 {
        let mut at = 0;
        let mut left_out = false;
        while at < steps.len() && *tries < TRIES_MAX {
            let mut candidate = steps.clone();
            candidate.drain(at..(at + length).min(steps.len()));
            *tries += 1;
            if !candidate.is_empty() && fails(&candidate).await {
                steps = candidate;
                left_out = true;
            } else {
                at += length;
            }
        }
        if length > 1 || !left_out {
            length /= 2;
        }
    }
    steps
}

/// Leaves out parts of transactions.
async fn smaller(mut steps: Vec<Step>, fails: &impl AsyncFn(&[Step]) -> bool, tries: &mut usize) -> Vec<Step> {
    for at in 0..steps.len() {
        while let Step::Txn(txn) = &steps[at] {
            let mut found = None;
            for candidate in without_one_part(txn) {
                if *tries >= TRIES_MAX {
                    return steps;
                }
                *tries += 1;
                let mut changed = steps.clone();
                changed[at] = Step::Txn(candidate);
                if fails(&changed).await {
                    found = Some(changed);
                    break;
                }
            }
            match found {
                Some(changed) => steps = changed,
                None => break,
            }
        }
    }
    steps
}

fn without_one_part(txn: &pb::TxnRequest) -> Vec<pb::TxnRequest> {
    let mut candidates = Vec::new();
    for at in 0..txn.compare.len() {
        let mut candidate = txn.clone();
        candidate.compare.remove(at);
        candidates.push(candidate);
    }
    let branches: [fn(&mut pb::TxnRequest) -> &mut Vec<pb::RequestOp>; 2] =
        [|txn| &mut txn.success, |txn| &mut txn.failure];
    for branch in branches {
        let mut whole = txn.clone();
        let ops = branch(&mut whole).clone();
        for (at, op) in ops.iter().enumerate() {
            let mut candidate = txn.clone();
            branch(&mut candidate).remove(at);
            candidates.push(candidate);
            if let Some(Request::RequestTxn(nested)) = &op.request {
                for smaller in without_one_part(nested) {
                    let mut candidate = txn.clone();
                    branch(&mut candidate)[at].request = Some(Request::RequestTxn(smaller));
                    candidates.push(candidate);
                }
            }
        }
    }
    candidates
}
