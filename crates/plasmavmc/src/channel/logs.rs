//! The workload's output on its way to the host. The guest sends a window's worth and then waits for the reader.

use std::sync::Arc;

use model::guest::{LOG_LINE_OVERHEAD, LOG_WINDOW, LogLine, ToGuest};
use tokio::sync::mpsc;

use super::Error;
use super::shared::{Lines, Shared};

/// Lines that fit a window, however short, with one notice of loss between any two.
const LINES_MAX: usize = 2 * (LOG_WINDOW / LOG_LINE_OVERHEAD + 1);
/// Acknowledged in pieces, so that a busy reader does not answer each line.
const ACK_BYTES: usize = LOG_WINDOW / 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    Line(LogLine),
    /// Lines `from` up to, not including, `to` fell out of the guest's ring before they could be sent. With `to`
    /// smaller than `from`: the guest has not printed as much, it is another boot; lines go on from `to`.
    Lost {
        from: u64,
        to: u64,
    },
}

pub struct Logs {
    shared: Arc<Shared>,
    items: mpsc::Receiver<LogItem>,
    unacknowledged: usize,
    next: u64,
}

impl Logs {
    pub(super) async fn open(shared: &Arc<Shared>, from: u64) -> Result<Self, Error> {
        let (sender, items) = mpsc::channel(LINES_MAX);
        *shared.lines.lock() = Some(Lines { sender, asked: from, started: false });
        shared.send(&ToGuest::LogsFrom { seq: from }).await?;
        Ok(Self { shared: Arc::clone(shared), items, unacknowledged: 0, next: from })
    }

    /// The number after the last line given: where another connection goes on.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// The next line, or notice of lost ones; `None` when the connection has ended or another reader took over.
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<LogItem> {
        let item = self.items.recv().await?;
        match &item {
            LogItem::Line(line) => {
                self.next = line.seq + 1;
                self.unacknowledged += line.text.len() + LOG_LINE_OVERHEAD;
            }
            LogItem::Lost { to, .. } => self.next = *to,
        }
        // When the write task is far behind, the next line tries again.
        if self.unacknowledged >= ACK_BYTES && self.shared.try_send(&ToGuest::LogsAck { next: self.next }) {
            self.unacknowledged = 0;
        }
        Some(item)
    }
}
