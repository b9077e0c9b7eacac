//! The nearest right name to a wrong one.

/// Mistakes up to which a name is taken for a misspelt one.
const EDITS_MAX: usize = 3;
/// Characters of a wrong name that are looked at.
const CHARS_MAX: usize = 40;

/// A hint about a name that is none of `allowed`.
pub fn hint<'a>(wrong: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> String {
    let wrong: String = wrong.chars().take(CHARS_MAX).collect();
    let nearest = allowed.clone().map(|name| (edits(&wrong, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= EDITS_MAX && distance < name.len() => format!("did you mean `{name}`?"),
        Some(_) => format!("possible: {}", allowed.collect::<Vec<_>>().join(", ")),
        None => "there are none here".to_owned(),
    }
}

/// Insertions, deletions and replacements between two texts.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        let allowed = ["limit", "cursor", "scope"];
        assert_eq!(hint("limt", allowed.into_iter()), "did you mean `limit`?");
        assert_eq!(hint("completely-else", allowed.into_iter()), "possible: limit, cursor, scope");
        assert_eq!(hint("x", std::iter::empty()), "there are none here");
    }
}
