use std::io::Read as _;

use bytes::Bytes;
use clap::Args;
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest, request_op, response_op};
use model::Code;
use serde_json::json;

use super::{show, stretch};
use crate::cli::session::Session;
use crate::cli::store::link::{Link, LinkArgs};
use crate::failure::{Failure, Outcome};

/// No store takes more in one request.
const VALUE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
pub struct PutArgs {
    /// The key
    #[arg(value_name = "KEY")]
    key: String,
    /// The value; - reads stdin, @FILE a file
    #[arg(value_name = "VALUE|-|@FILE", required_unless_present = "keep_value", conflicts_with = "keep_value")]
    value: Option<String>,
    /// The key goes when this lease does; hexadecimal, as `vt kv get` shows it
    #[arg(long, value_name = "ID", value_parser = lease)]
    lease: Option<i64>,
    /// Leave the value as it is; the key has to exist
    #[arg(long)]
    keep_value: bool,
    /// Leave the lease as it is; the key has to exist
    #[arg(long, conflicts_with = "lease")]
    keep_lease: bool,
    /// Only when the key was last changed at this revision; 0: only when it does not exist
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(0..))]
    if_revision: Option<i64>,
    /// KEY and VALUE are written in base64
    #[arg(long)]
    base64: bool,
    #[command(flatten)]
    link: LinkArgs,
}

pub fn lease(text: &str) -> Result<i64, String> {
    let wrong = || "write the lease's id in hexadecimal, for example 694d7f2e".to_owned();
    i64::from_str_radix(text.trim_start_matches("0x"), 16).ok().filter(|id| *id > 0).ok_or_else(wrong)
}

fn value(args: &PutArgs) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let read = match args.value.as_deref() {
        None => return Ok(Bytes::new()),
        Some("-") => std::io::stdin().take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                std::fs::File::open(path).and_then(|file| file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes))
            }
            None => return stretch::bytes("VALUE", text, args.base64),
        },
    };
    read.map_err(|error| Failure::usage(format!("the value cannot be read: {error}")))?;
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::new(Code::TooLarge, format!("the value has more than {VALUE_BYTES_MAX} bytes")));
    }
    Ok(bytes.into())
}

pub async fn run(session: &Session, args: &PutArgs) -> Outcome {
    let key = stretch::one(stretch::bytes("KEY", &args.key, args.base64)?)?.key;
    let put = PutRequest {
        key: key.clone(),
        value: value(args)?,
        lease: args.lease.unwrap_or(0),
        prev_kv: true,
        ignore_value: args.keep_value,
        ignore_lease: args.keep_lease,
    };
    let link = Link::open(&args.link).await?;
    let name = key.escape_ascii().to_string();
    let answer = match args.if_revision {
        None => {
            link.change(|member| {
                let put = put.clone();
                async move { member.kv().put(put).await }
            })
            .await?
        }
        Some(revision) => {
            let compare = Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::ModRevision(revision)),
            };
            let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
            let txn = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
            let answer = link
                .change(|member| {
                    let txn = txn.clone();
                    async move { member.kv().txn(txn).await }
                })
                .await?;
            let first = answer.responses.into_iter().next().and_then(|answer| answer.response);
            match first {
                Some(response_op::Response::ResponsePut(put)) if answer.succeeded => put,
                _ => {
                    let was = if revision == 0 {
                        "exists already".to_owned()
                    } else {
                        format!("is not at revision {revision}")
                    };
                    return Err(Failure::new(Code::VersionConflict, format!("key {name} {was}; nothing was changed"))
                        .hint(format!("vt kv get {name}   shows where it is")));
                }
            }
        }
    };
    let revision = answer.header.as_ref().map(|header| header.revision);
    let previous = answer.prev_kv.as_ref().map(show::row);
    let next = format!("vt kv get {name}");
    let receipt = json!({
        "operation": "put", "key": name, "revision": revision, "previous": previous, "next": [next],
    });
    session.out.value(&receipt, || {
        let was = answer
            .prev_kv
            .as_ref()
            .map_or("the key is new".to_owned(), |was| format!("was at revision {}", was.mod_revision));
        let revision = revision.unwrap_or_default();
        format!("put {name}\n  revision  {revision}, {was}\n  next      {next}\n")
    })?;
    Ok(0)
}
