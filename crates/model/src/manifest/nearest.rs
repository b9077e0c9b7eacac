//! What someone probably meant.

/// Words longer than this are not compared: nobody mistypes them into something near.
const CHARS_MAX: usize = 48;

/// The candidate nearest to `word`, when one is near enough to be worth showing: at most a third of its letters
/// wrong. The first of equally near ones.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace(['-', ' '], "_");
    if word.chars().count() > CHARS_MAX {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase().replace('-', "_")), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, changes and swaps of neighbours that turn one into the other (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row; right.len() + 1];
        for column in 1..=right.len() {
            let same = left[row - 1] == right[column - 1];
            let mut best = (above[column] + 1).min(current[column - 1] + 1).min(above[column - 1] + usize::from(!same));
            let swapped =
                row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(before[column - 2] + 1);
            }
            current[column] = best;
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let keys = ["memory", "cpu", "disk"];
        assert_eq!(nearest("memmory", keys), Some("memory"));
        assert_eq!(nearest("mempry", keys), Some("memory"));
        assert_eq!(nearest("Memory", keys), Some("memory"));
        assert_eq!(nearest("cup", keys), Some("cpu"));
        assert_eq!(nearest("network", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
