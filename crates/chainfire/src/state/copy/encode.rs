//! Making the pieces.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use store::Error;

use super::{BODY_BYTES_MAX, CRC_BYTES, END, HEAD_BYTES, HEADER, ITEMS, MAGIC, crc};
use crate::door::host::SnapshotPieces;
use crate::state::book::{Book, View};
use crate::state::disk::Items;
use crate::state::keys;
use crate::state::marks::Marks;

/// Pieces that wait for whoever takes them.
const PIECES_AHEAD: usize = 2;

/// Of one moment, made as they are taken. Reading them may wait for the disk.
pub struct Pieces {
    /// Its files must not go.
    book: Arc<Book>,
    marks: Arc<Marks>,
    items: Items,
    /// There are no threads to wait on.
    inline: bool,
    /// Bodies that are not full yet.
    body: Vec<u8>,
    place: u64,
    count: u64,
    sha: Sha256,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Items,
    Over,
}

impl Pieces {
    pub fn new(view: View, inline: bool) -> Self {
        let (book, marks, items) = (view.book.clone(), view.marks.clone(), view.frozen());
        let (body, sha) = (Vec::new(), Sha256::new());
        Self { book, marks, items, inline, body, place: 0, count: 0, sha, state: State::Header }
    }

    /// Sends them from a task of its own.
    pub fn send(self) -> SnapshotPieces {
        let (sender, receiver) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        if self.inline {
            tokio::spawn(async move {
                for piece in self {
                    if sender.send(piece).await.is_err() {
                        return;
                    }
                }
            });
        } else {
            tokio::task::spawn_blocking(move || {
                for piece in self {
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
            });
        }
        receiver
    }

    fn piece(&mut self, kind: u8, body: &[u8]) -> Bytes {
        let mut piece = Vec::with_capacity(MAGIC.len() + HEAD_BYTES + body.len() + CRC_BYTES);
        if self.place == 0 {
            piece.extend_from_slice(MAGIC);
        }
        let start = piece.len();
        piece.push(kind);
        piece.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc(self.place, &piece[start..], body);
        piece.extend_from_slice(body);
        piece.extend_from_slice(&crc.to_le_bytes());
        self.place += 1;
        self.sha.update(body);
        Bytes::from(piece)
    }

    /// Fills the body from the tree; answers whether there may be more.
    fn gather(&mut self) -> Result<bool, Error> {
        while self.body.len() < BODY_BYTES_MAX {
            let Some(item) = self.items.next() else { return Ok(false) };
            let (key, value) = item?;
            // The header has them, as they are at this moment.
            if key[..] == [keys::MARKS] {
                continue;
            }
            self.body.extend_from_slice(&(key.len() as u16).to_le_bytes());
            self.body.extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.body.extend_from_slice(&key);
            self.body.extend_from_slice(&value);
            self.count += 1;
        }
        Ok(true)
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.state {
            State::Header => {
                self.state = State::Items;
                let body = self.marks.body();
                Some(Ok(self.piece(HEADER, &body)))
            }
            State::Items => {
                let path = self.book.path.clone();
                match crate::fault::contained(&path, || self.gather()) {
                    Ok(_) if !self.body.is_empty() => {
                        let rest = self.body.split_off(self.body.len().min(BODY_BYTES_MAX));
                        let body = std::mem::replace(&mut self.body, rest);
                        Some(Ok(self.piece(ITEMS, &body)))
                    }
                    Ok(_) => {
                        self.state = State::Over;
                        let mut body = self.count.to_le_bytes().to_vec();
                        body.extend_from_slice(&self.sha.clone().finalize());
                        Some(Ok(self.piece(END, &body)))
                    }
                    Err(error) => {
                        self.state = State::Over;
                        Some(Err(error))
                    }
                }
            }
            State::Over => None,
        }
    }
}
