use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use etcd::proto::etcdserverpb::SnapshotRequest;
use model::Code;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::link::{Link, LinkArgs};
use super::told::told;
use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};
use crate::output::steps::Steps;
use crate::output::text;

/// A snapshot ends with the SHA-256 of everything before it.
const TRAILER_BYTES: usize = 32;
/// Of a file that is read.
const PIECE_BYTES: usize = 1 << 20;
/// Between two pieces; the first one waits for the store to be copied.
const PIECE_TIME_MAX: Duration = Duration::from_mins(2);

#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write over a file that exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    link: LinkArgs,
}

pub async fn run(session: &Session, args: &SnapshotArgs) -> Outcome {
    if args.file.exists() && !args.force {
        return Err(Failure::new(Code::Conflict, format!("{} exists", args.file.display()))
            .hint("choose another name, or --force"));
    }
    let link = Link::open(&args.link).await?;
    let folder = match args.file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let io = |error: std::io::Error| {
        Failure::new(Code::Failed, format!("{} cannot be written: {error}", args.file.display()))
    };
    // Beside its place, so that a rename puts it there whole or not at all.
    let mut file = tempfile::Builder::new().prefix(".snapshot-").tempfile_in(&folder).map_err(io)?;
    let mut steps = Steps::begin(&session.out);
    let mut pieces = link.one(link.client.connection().leaderless().maintenance().snapshot(SnapshotRequest {})).await?;
    let mut sum = Trailing::default();
    loop {
        let piece = tokio::time::timeout(PIECE_TIME_MAX, pieces.message()).await.map_err(|_| {
            Failure::new(Code::DeadlineExceeded, "the store stopped sending in the middle of the snapshot")
        })?;
        let Some(piece) = piece.map_err(|status| told(&status))? else { break };
        file.write_all(&piece.blob).map_err(io)?;
        sum.add(&piece.blob);
        steps.draw(&format!("{} saved", text::bytes(sum.bytes)));
    }
    steps.clear();
    let bytes = sum.bytes;
    let hash = sum.finish().ok_or_else(|| {
        Failure::new(Code::Failed, "the snapshot came damaged and was not kept")
            .why(format!("{bytes} bytes came, and their sum is not the one at their end"))
            .hint("ask again; vt store check   compares the members")
    })?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(&args.file).map_err(|error| io(error.error))?;
    std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    let name = args.file.display().to_string();
    let next = format!("vt store restore {name} --data-dir DIR --name NAME");
    let receipt = json!({ "operation": "snapshot", "file": name, "bytes": bytes, "sha256": hash, "next": [next] });
    session.out.value(&receipt, || {
        format!("saved {name}\n  size    {}\n  sha256  {hash}\n  next    {next}\n", text::bytes(bytes))
    })?;
    Ok(0)
}

/// The sum of all but the last bytes, which are the sum that the sender made.
#[derive(Default)]
struct Trailing {
    bytes: u64,
    sum: Sha256,
    last: Vec<u8>,
}

impl Trailing {
    fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.last.extend_from_slice(piece);
        let done = self.last.len().saturating_sub(TRAILER_BYTES);
        self.sum.update(&self.last[..done]);
        self.last.drain(..done);
    }

    /// The sum, when it is the one at the end.
    fn finish(self) -> Option<String> {
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let made = self.sum.finalize();
        (self.last.len() == TRAILER_BYTES && self.last[..] == made[..]).then(|| hex(&made))
    }
}

/// Whether a file holds a whole snapshot. Errors say why not.
pub fn verify(path: &Path) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let mut file = std::fs::File::open(path).map_err(wrong)?;
    let mut sum = Trailing::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).map_err(wrong)? {
            0 => break,
            read => sum.add(&piece[..read]),
        }
    }
    let damaged = || Failure::new(Code::Failed, format!("{} is no whole snapshot", path.display()));
    let sound = sum.finish().is_some();
    if sound { Ok(()) } else { Err(damaged().why("the sum at its end is not the one of what it holds")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_whole_or_refused_however_it_was_cut_in_pieces() {
        let body: Vec<u8> = (0..1000_u32).map(|at| (at % 251) as u8).collect();
        let whole = [&body[..], &Sha256::digest(&body)].concat();
        for size in [1, 31, 32, 33, 500, 2000] {
            let mut sum = Trailing::default();
            whole.chunks(size).for_each(|piece| sum.add(piece));
            assert_eq!(sum.bytes, 1032);
            assert!(sum.finish().is_some(), "{size}");
            let mut damaged = whole.clone();
            damaged[size.min(999)] ^= 1;
            let mut sum = Trailing::default();
            damaged.chunks(size).for_each(|piece| sum.add(piece));
            assert!(sum.finish().is_none(), "{size}");
        }
        let mut sum = Trailing::default();
        sum.add(&whole[..20]);
        assert!(sum.finish().is_none());
    }
}
