//! What happened and what was printed, numbered and bounded, so that a host that was away can catch up.

use std::collections::VecDeque;

use model::guest::{Event, LOG_LINE_MAX, LogLine, LogStream, Numbered, Phase, State};

/// Bytes of log lines kept, their bookkeeping included.
const LOG_RING_MAX: usize = 1024 * 1024;
const LINE_OVERHEAD: usize = 64;
const EVENTS_MAX: usize = 256;

#[derive(Default)]
pub struct Journal {
    lines: VecDeque<LogLine>,
    line_bytes: usize,
    line_next: u64,
    events: VecDeque<Numbered>,
    event_next: u64,
    state: State,
}

impl Journal {
    /// Adds a line; the oldest ones fall out when the ring is full. The workload never waits.
    pub fn line(&mut self, unix_ns: u64, stream: LogStream, partial: bool, text: Vec<u8>) {
        self.line_bytes += text.len() + LINE_OVERHEAD;
        self.lines.push_back(LogLine { seq: self.line_next, unix_ns, stream, partial, text });
        self.line_next += 1;
        while self.line_bytes > LOG_RING_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.line_bytes -= oldest.text.len() + LINE_OVERHEAD;
        }
    }

    pub fn line_first(&self) -> u64 {
        self.line_next - self.lines.len() as u64
    }

    /// The line of this number, when it is still held.
    pub fn line_at(&self, seq: u64) -> Option<&LogLine> {
        self.lines.get(usize::try_from(seq.checked_sub(self.line_first())?).ok()?)
    }

    pub fn line_next(&self) -> u64 {
        self.line_next
    }

    pub fn event_first(&self) -> u64 {
        self.event_next - self.events.len() as u64
    }

    pub fn event_at(&self, seq: u64) -> Option<&Numbered> {
        self.events.get(usize::try_from(seq.checked_sub(self.event_first())?).ok()?)
    }

    /// Records an event and what it means for the state.
    pub fn event(&mut self, unix_ns: u64, event: Event) {
        self.state.apply(&event);
        self.events.push_back(Numbered { seq: self.event_next, unix_ns, event });
        self.event_next += 1;
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    pub fn phase(&mut self, phase: Phase) {
        self.state.phase = phase;
    }

    pub fn state(&self) -> State {
        State {
            log_first: self.line_first(),
            log_next: self.line_next,
            event_first: self.event_first(),
            event_next: self.event_next,
            ..self.state.clone()
        }
    }
}

/// An unfinished line is sent on after this long, so that a prompt is seen.
pub const PARTIAL_FLUSH_MS: u64 = 500;

/// Bytes of one stream into lines.
#[derive(Default)]
pub struct Splitter {
    rest: Vec<u8>,
    since_ms: u64,
}

impl Splitter {
    /// Calls `line(text, partial)` for each whole line and for each full piece of a long one.
    pub fn push(&mut self, now_ms: u64, bytes: &[u8], mut line: impl FnMut(Vec<u8>, bool)) {
        if self.rest.is_empty() {
            self.since_ms = now_ms;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            let whole = piece.ends_with(b"\n");
            if whole {
                self.rest.pop();
            }
            while self.rest.len() > LOG_LINE_MAX {
                let tail = self.rest.split_off(LOG_LINE_MAX);
                line(std::mem::replace(&mut self.rest, tail), true);
            }
            if whole {
                line(std::mem::take(&mut self.rest), false);
                self.since_ms = now_ms;
            }
        }
    }

    /// What is left at the end of the stream.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }

    /// When an unfinished line must be sent on.
    pub fn deadline(&self) -> Option<u64> {
        (!self.rest.is_empty()).then_some(self.since_ms + PARTIAL_FLUSH_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Line = (Vec<u8>, bool);

    fn split(pieces: &[&[u8]]) -> (Vec<Line>, Option<Vec<u8>>) {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(0, piece, |text, partial| lines.push((text, partial)));
        }
        (lines, splitter.finish())
    }

    #[test]
    fn lines_are_cut_at_newlines_wherever_the_reads_fell() {
        let (lines, rest) = split(&[b"one\ntw", b"o\n\nth", b"ree"]);
        let texts: Vec<_> = lines.iter().map(|(text, _)| text.as_slice()).collect();
        assert_eq!(texts, [b"one".as_slice(), b"two", b""]);
        assert_eq!(rest.unwrap(), b"three");
    }

    #[test]
    fn a_long_line_comes_in_marked_pieces() {
        let mut long = vec![b'x'; LOG_LINE_MAX * 2];
        let (lines, rest) = split(&[&long]);
        assert_eq!(lines.len(), 1);
        assert_eq!(rest.unwrap().len(), LOG_LINE_MAX);
        long.extend_from_slice(b"y\nz\n");
        let (lines, rest) = split(&[&long]);
        let shape: Vec<_> = lines.iter().map(|(text, partial)| (text.len(), *partial)).collect();
        assert_eq!(shape, [(LOG_LINE_MAX, true), (LOG_LINE_MAX, true), (1, false), (1, false)]);
        assert_eq!(rest, None);
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_the_numbers() {
        let mut journal = Journal::default();
        for number in 0..5000u64 {
            journal.line(number, LogStream::Stdout, false, vec![b'x'; 1000]);
        }
        assert_eq!(journal.line_next(), 5000);
        let first = journal.line_first();
        assert!(first > 3900 && first < 4100, "{first}");
        assert_eq!(journal.line_at(first).unwrap().seq, first);
        assert_eq!(journal.line_at(4999).unwrap().unix_ns, 4999);
        assert!(journal.line_at(first - 1).is_none() && journal.line_at(5000).is_none());
    }

    #[test]
    fn the_state_is_the_fold_of_the_events() {
        let exit = model::guest::Exit { code: None, signal: Some(9), oom: true };
        let mut journal = Journal::default();
        journal.event(1, Event::Started { pid: 7 });
        journal.event(2, Event::Ready);
        assert!(journal.state().ready);
        journal.event(3, Event::Exited(exit));
        journal.event(4, Event::Restarting { attempt: 1, delay_ms: 5, crash_loop: false });
        let state = journal.state();
        assert_eq!((state.phase, state.pid, state.ready, state.restarts), (Phase::Backoff, None, false, 1));
        assert_eq!(state.detail, "killed by signal 9 for want of memory");
        assert_eq!((state.event_first, state.event_next, state.last_exit), (0, 4, Some(exit)));
        for _ in 0..EVENTS_MAX {
            journal.event(5, Event::Ready);
        }
        assert_eq!(journal.event_first(), 4);
        assert_eq!(journal.event_at(4).unwrap().seq, 4);
        assert!(journal.event_at(3).is_none());
    }
}
