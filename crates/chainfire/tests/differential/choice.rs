//! Random choices that a seed decides.

use bytes::Bytes;

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub struct Choices {
    state: u64,
}

impl Choices {
    pub fn new(seed: u64) -> Self {
        // Seeds next to each other should not give related histories.
        let mut choices = Self { state: seed.wrapping_mul(0xd134_2543_de82_ef95) };
        choices.number();
        choices
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// In `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    /// The first with its weight, and so on.
    pub fn weighted<T: Clone>(&mut self, choices: &[(u64, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if at < *weight {
                return choice.clone();
            }
            at -= weight;
        }
        unreachable!("the weights were summed up")
    }

    /// Few keys, so that operations meet; some are prefixes of others, some lie at the edges of the key space.
    pub fn key(&mut self) -> Bytes {
        const KEYS: [&[u8]; 11] =
            [b"a", b"a/1", b"a/2", b"a/2\0", b"a/3", b"b", b"b/1", b"b\xff", b"c", b"\0", b"\xff"];
        Bytes::from_static(self.pick(&KEYS))
    }

    pub fn value(&mut self) -> Bytes {
        match self.below(8) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![b'x'; self.between(1, 300) as usize]),
            _ => Bytes::from(self.below(5).to_string()),
        }
    }

    /// Start and end as the protocol has them: an empty end is the one key, `\0` is the end of the key space. Now and then
    /// the end lies before the start.
    pub fn stretch(&mut self) -> (Bytes, Bytes) {
        let nul = Bytes::from_static(b"\0");
        match self.below(12) {
            0..=4 => (self.key(), Bytes::new()),
            5 | 6 => {
                let key = self.key();
                let end = after_prefix(&key);
                (key, end)
            }
            7 => (nul.clone(), nul),
            8 => (self.key(), nul),
            _ => (self.key(), self.key()),
        }
    }

    /// As [`Choices::stretch`], now and then with an empty start.
    pub fn stretch_or_empty(&mut self) -> (Bytes, Bytes) {
        let (start, end) = self.stretch();
        if self.one_in(40) { (Bytes::new(), end) } else { (start, end) }
    }

    pub fn key_or_empty(&mut self) -> Bytes {
        if self.one_in(60) { Bytes::new() } else { self.key() }
    }
}

/// The end of the stretch of all keys that begin with `prefix`, in the protocol's way.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let Some(at) = prefix.iter().rposition(|byte| *byte != u8::MAX) else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Bytes::from(end)
}
