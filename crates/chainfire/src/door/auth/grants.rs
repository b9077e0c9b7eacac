//! Which stretches of keys someone may touch: pure.

use bytes::Bytes;

use super::rows::Permission;

/// Stretches of keys, ascending, without overlaps or seams. An end of `None` is the end of the key space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stretches(Vec<(Bytes, Option<Bytes>)>);

impl Stretches {
    pub fn of<'p>(permissions: impl IntoIterator<Item = &'p Permission>) -> Self {
        let mut all: Vec<_> = permissions.into_iter().map(|p| (p.key.clone(), end(&p.key, &p.range_end))).collect();
        all.sort();
        let mut merged: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match merged.last_mut() {
                Some((_, None)) => break,
                Some((_, Some(last))) if start <= *last => match end {
                    Some(end) if end <= *last => {}
                    end => merged.last_mut().expect("there is a last one").1 = end,
                },
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// Whether every key from `key` to `range_end`, both as the protocol writes them, is inside.
    pub fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let before = self.0.partition_point(|(start, _)| start[..] <= *key);
        let Some((_, last)) = before.checked_sub(1).map(|at| &self.0[at]) else { return false };
        let Some(last) = last else { return true };
        match end(key, range_end) {
            None => false,
            Some(end) => end <= *last,
        }
    }
}

/// A range that ends before it starts touches nothing; it is judged by its first key.
fn end(key: &[u8], range_end: &[u8]) -> Option<Bytes> {
    match range_end {
        [0] => None,
        end if end > key => Some(Bytes::copy_from_slice(end)),
        _ => Some(Bytes::from([key, &[0]].concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::auth::rows::Access;

    fn stretches(permissions: &[(&str, &str)]) -> Stretches {
        let permissions: Vec<_> = permissions
            .iter()
            .map(|(key, end)| Permission {
                access: Access::Read,
                key: Bytes::from(key.to_string()),
                range_end: Bytes::from(end.to_string()),
            })
            .collect();
        Stretches::of(&permissions)
    }

    #[test]
    fn what_is_inside_is_covered_and_nothing_else() {
        let grants = stretches(&[("b", "d"), ("f", ""), ("h", "k")]);
        for (key, end, expected) in [
            ("b", "", true),
            ("c\u{7f}", "", true),
            ("d", "", false),
            ("a", "", false),
            ("b", "d", true),
            ("b", "c", true),
            ("a", "c", false),
            ("b", "e", false),
            ("b", "\0", false),
            ("f", "", true),
            ("f", "f\0", true),
            ("f", "g", false),
            ("f\0", "", false),
            ("b", "i", false),
            ("c", "a", true),
            ("e", "a", false),
        ] {
            assert_eq!(grants.cover(key.as_bytes(), end.as_bytes()), expected, "{key:?} to {end:?}");
        }
    }

    #[test]
    fn neighbours_are_one_stretch_and_an_open_end_swallows_the_rest() {
        let grants = stretches(&[("c", "e"), ("a", "c"), ("d", "d5")]);
        assert!(grants.cover(b"a", b"e"));
        assert!(!grants.cover(b"a", b"e\0"));
        let grants = stretches(&[("c", "\0"), ("x", "y"), ("a", "b")]);
        assert!(grants.cover(b"z", b"\0"));
        assert!(grants.cover(b"c", b""));
        assert!(!grants.cover(b"b", b"\0"));
        assert!(stretches(&[("\0", "\0")]).cover(b"anything", b"\0"));
        assert!(!stretches(&[]).cover(b"a", b""));
    }
}
