//! ```text
//! document   {"when": [...], "then": [...], "else": [...]}
//! text       what etcdctl reads: comparisons, an empty line, operations, an empty line, operations
//! ```

mod document;
mod text;

use std::fmt::Write as _;
use std::io::Read as _;

use clap::Args;
use etcd::proto::etcdserverpb::{ResponseOp, TxnRequest, TxnResponse, response_op};
use model::Code;
use serde_json::{Value, json};

use super::show;
use crate::cli::session::Session;
use crate::cli::store::link::{Link, LinkArgs};
use crate::failure::{Failure, Outcome};

/// More than any store takes in one transaction.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
pub struct TxnArgs {
    /// The document; - or nothing reads stdin
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: String,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &TxnArgs) -> Outcome {
    let txn = read(&args.file)?;
    let alternative = !txn.failure.is_empty();
    let link = Link::open(&args.link).await?;
    let answer = link
        .change(|member| {
            let txn = txn.clone();
            async move { member.kv().txn(txn).await }
        })
        .await?;
    if !answer.succeeded && !alternative {
        return Err(Failure::new(Code::VersionConflict, "the comparisons do not hold; nothing was changed")
            .hint("read the keys again; an `else` says what to do then"));
    }
    let shown = shown(&answer);
    session.out.value(&shown, || {
        let branch = if answer.succeeded { "then" } else { "else" };
        let mut text = format!("did `{branch}` at revision {}\n", shown["revision"]);
        for done in shown["answers"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "  {done}");
        }
        text
    })?;
    Ok(0)
}

fn read(file: &str) -> Result<TxnRequest, Failure> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::usage(format!("{file} cannot be read: {error}")))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Failure::new(Code::TooLarge, format!("the document has more than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let document = String::from_utf8(bytes).map_err(|_| Failure::usage("the document is not UTF-8"))?;
    let json = document.trim_start().starts_with('{');
    let txn = if json { document::read(&document) } else { text::read(&document) }?;
    if txn.compare.is_empty() && txn.success.is_empty() && txn.failure.is_empty() {
        return Err(Failure::usage("the transaction does nothing").hint("vt kv txn --help   shows one"));
    }
    Ok(txn)
}

fn shown(answer: &TxnResponse) -> Value {
    json!({
        "succeeded": answer.succeeded,
        "revision": answer.header.as_ref().map(|header| header.revision),
        "answers": answer.responses.iter().map(done).collect::<Vec<_>>(),
    })
}

fn done(answer: &ResponseOp) -> Value {
    match &answer.response {
        Some(response_op::Response::ResponsePut(put)) => {
            json!({ "put": { "previous": put.prev_kv.as_ref().map(show::row) } })
        }
        Some(response_op::Response::ResponseDeleteRange(delete)) => {
            json!({ "delete": { "deleted": delete.deleted } })
        }
        Some(response_op::Response::ResponseRange(range)) => json!({
            "get": { "items": range.kvs.iter().map(show::row).collect::<Vec<_>>(), "count": range.count, "more": range.more },
        }),
        Some(response_op::Response::ResponseTxn(txn)) => json!({ "txn": shown(txn) }),
        None => Value::Null,
    }
}
