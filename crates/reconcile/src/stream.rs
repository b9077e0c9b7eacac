//! Bytes that flow to or from a row while someone looks: logs, a shell. They never cross the store.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages that may wait on either side before the faster one is held.
pub const MESSAGES_MAX: usize = 64;

/// A way to talk to what realises a row. Dropping it hangs up.
#[derive(Debug)]
pub struct Stream {
    /// Towards the row. One message is one frame.
    pub input: mpsc::Sender<Bytes>,
    /// From the row; ends when the row's side is done.
    pub output: mpsc::Receiver<Bytes>,
}

/// The row's side of a [`Stream`].
#[derive(Debug)]
pub struct Far {
    pub input: mpsc::Receiver<Bytes>,
    pub output: mpsc::Sender<Bytes>,
}

/// Both sides of a new stream.
pub fn pair() -> (Stream, Far) {
    let (to_row, from_caller) = mpsc::channel(MESSAGES_MAX);
    let (to_caller, from_row) = mpsc::channel(MESSAGES_MAX);
    (Stream { input: to_row, output: from_row }, Far { input: from_caller, output: to_caller })
}
