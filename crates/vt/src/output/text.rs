//! Amounts, ages and names as people read them.

/// `512.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut amount = count as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// A length of time in its largest unit: `3s`, `5m`, `2h`, `4d`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A point in time by its distance from now.
pub fn when(at_ms: u64, now_ms: u64) -> String {
    if at_ms > now_ms + 999 { format!("in {}", span(at_ms - now_ms)) } else { span(now_ms.saturating_sub(at_ms)) }
}

/// Elapsed seconds with tenths, for steps: `  2.1s`.
pub fn elapsed(ms: u64) -> String {
    let seconds = ms / 1000;
    if seconds < 60 {
        format!("{:>3}.{}s", seconds, ms % 1000 / 100)
    } else {
        format!("{:>2}m{:02}s", seconds / 60, seconds % 60)
    }
}

/// `2026-01-02T03:04:05Z`.
pub fn time(at_ms: u64) -> String {
    jiff::Timestamp::from_millisecond(i64::try_from(at_ms).unwrap_or(i64::MAX))
        .map_or_else(|_| at_ms.to_string(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The text up to the first characters of its digest, enough to tell digests apart on one screen.
pub fn digest(text: &str) -> String {
    const MARK: &str = "sha256:";
    let end = text.find(MARK).map_or(0, |at| at + MARK.len());
    text[..end].chars().chain(text[end..].chars().take(12)).collect()
}

/// At most `chars_max` characters, the last one `…` where something was left out.
pub fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

/// Without characters that could move a terminal's cursor or change its state: what comes from elsewhere is text.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As [`clean`], but colours of log lines stay (`ESC [ ... m`), and tabs.
pub fn clean_log(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut colored = false;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\x1b[") {
            let end = after.find(|c: char| !(c.is_ascii_digit() || c == ';')).unwrap_or(after.len());
            if after[end..].starts_with('m') {
                out.push_str(&rest[..end + 3]);
                rest = &after[end + 1..];
                colored = true;
                continue;
            }
        }
        out.push(if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
        rest = &rest[c.len_utf8()..];
    }
    if colored {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_are_humane() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(512 << 20), "512.0 MiB");
        assert_eq!(
            (span(999), span(61_000), span(7_200_000), span(90_000_000)),
            ("0s".into(), "1m".into(), "2h".into(), "1d".into())
        );
        assert_eq!(when(10_000, 4_000), "in 6s");
        assert_eq!((elapsed(2_190), elapsed(61_000)), ("  2.1s".into(), " 1m01s".into()));
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(shorten("abcdef", 4), "abc…");
    }

    #[test]
    fn log_lines_keep_colours_and_nothing_that_moves_the_cursor() {
        assert_eq!(clean_log("\x1b[31mred\x1b[0m\tx"), "\x1b[31mred\x1b[0m\tx\x1b[0m");
        assert_eq!(clean_log("a\x1b[2Jb\x07\x1b"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(clean("\x1b]0;title\x07"), "\u{fffd}]0;title\u{fffd}");
    }
}
