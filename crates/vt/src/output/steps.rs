//! Long work: one line for each step with the time it began at, and where there is a terminal, a last line that
//! moves with what is going on right now.

use std::io::{self, Write};
use std::time::Duration;

use super::{Out, text};

const BAR_CHARS: usize = 24;

/// The steps of one command, on stderr.
#[derive(Debug)]
pub struct Steps<'a> {
    out: &'a Out,
    clock: world::Clock,
    begun: Duration,
}

/// How far something has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub what: String,
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
    /// `bytes`, or the plural of what is counted.
    pub unit: String,
}

impl Progress {
    pub fn read(value: &serde_json::Value) -> Option<Self> {
        let what = value.get("what")?.as_str()?.to_owned();
        let number = |key: &str| value.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let unit = value.get("unit").and_then(serde_json::Value::as_str).unwrap_or("").to_owned();
        Some(Self { what, done: number("done"), total: number("total"), unit })
    }

    /// `pulling  [#####...]  12.0 MiB of 40.0 MiB`.
    pub fn render(&self) -> String {
        let amount = |count: u64| {
            if self.unit == "bytes" {
                text::bytes(count)
            } else {
                format!("{count} {}", self.unit).trim_end().to_owned()
            }
        };
        let what = text::clean(&self.what);
        if self.total == 0 {
            return if self.done == 0 { what } else { format!("{what}  {}", amount(self.done)) };
        }
        let done = self.done.min(self.total);
        let full = (u128::from(done) * BAR_CHARS as u128 / u128::from(self.total)) as usize;
        let bar: String = (0..BAR_CHARS).map(|at| if at < full { '#' } else { '.' }).collect();
        format!("{what}  [{bar}]  {} of {}", amount(done), amount(self.total))
    }
}

impl<'a> Steps<'a> {
    pub fn begin(out: &'a Out) -> Self {
        let clock = world::Clock::real();
        let begun = clock.monotonic();
        Self { out, clock, begun }
    }

    pub fn elapsed_ms(&self) -> u64 {
        self.clock.monotonic().saturating_sub(self.begun).as_millis() as u64
    }

    /// A line that stays.
    pub fn step(&mut self, what: &str) {
        self.clear();
        let time = self.out.paint("2", &text::elapsed(self.elapsed_ms()));
        self.out.note(format!("{time}  {what}"));
    }

    /// A line that the next one replaces. Nothing without a terminal.
    pub fn draw(&mut self, what: &str) {
        if !self.out.live {
            return;
        }
        let what = text::shorten(what, 100);
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[2K{}  {what}", text::elapsed(self.elapsed_ms()));
        let _ = stderr.flush();
        self.out.drawn.set(true);
    }

    pub fn clear(&mut self) {
        if self.out.drawn.take() {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K");
            let _ = stderr.flush();
        }
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bar_shows_bytes_and_never_overflows() {
        let read = |value| Progress::read(&value).unwrap().render();
        let half = read(json!({ "what": "pulling image", "done": 20 << 20, "total": 40 << 20, "unit": "bytes" }));
        assert_eq!(half, "pulling image  [############............]  20.0 MiB of 40.0 MiB");
        assert!(
            read(json!({ "what": "x", "done": 9, "total": 3, "unit": "layers" })).ends_with("3 layers of 3 layers")
        );
        assert_eq!(read(json!({ "what": "x" })), "x");
        assert!(Progress::read(&json!(null)).is_none());
    }
}
