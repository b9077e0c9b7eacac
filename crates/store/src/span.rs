//! A stretch of the key space.

use std::ops::Bound;

use bytes::Bytes;

use crate::{Key, RangeEnd};

/// The first key after every key that begins with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> RangeEnd {
    match prefix.iter().rposition(|byte| *byte != u8::MAX) {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            RangeEnd::Exclusive(Bytes::from(end))
        }
        None => RangeEnd::Unbounded,
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    pub start: Key,
    pub end: RangeEnd,
}

impl Span {
    pub fn new(start: Key, end: RangeEnd) -> Self {
        Self { start, end }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Exclusive(end) => key >= self.start && key < end,
            RangeEnd::Unbounded => key >= self.start,
        }
    }

    /// As bounds of an ordered map.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            RangeEnd::Single => Bound::Included(&self.start[..]),
            RangeEnd::Exclusive(end) => Bound::Excluded(&end[..]),
            RangeEnd::Unbounded => Bound::Unbounded,
        };
        (Bound::Included(&self.start[..]), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_can_begin_with_it() {
        assert_eq!(prefix_end(b"a/"), RangeEnd::Exclusive(Bytes::from_static(b"a0")));
        assert_eq!(prefix_end(b"a\xff\xff"), RangeEnd::Exclusive(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"\xff\xff"), RangeEnd::Unbounded);
        assert_eq!(prefix_end(b""), RangeEnd::Unbounded);
    }
}
