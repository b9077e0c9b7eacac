//! Names that people give to things: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`, as RFC 1123 has host labels.

/// The longest name: one DNS label.
pub const CHARS_MAX: usize = 63;

/// Says what is wrong with `text` as a name, and shows the nearest right one.
pub fn check(field: &str, text: &str) -> Result<(), crate::Error> {
    let bytes = text.as_bytes();
    let fine = !bytes.is_empty()
        && bytes.len() <= CHARS_MAX
        && bytes[0].is_ascii_lowercase()
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if fine {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(crate::Error::invalid(
        field,
        format!("`{shown}` is not a name: use 1 to 63 of a-z, 0-9 and `-`, beginning with a letter, not ending in `-`"),
    )
    .hint(format!("the nearest right form is `{}`", nearest(text))))
}

/// The nearest right name to `text`.
pub fn nearest(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(CHARS_MAX)
        .collect();
    while out.ends_with('-') {
        out.pop();
    }
    if out.is_empty() { "app".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "shop", "web-1", "x0"] {
            assert!(check("name", good).is_ok(), "{good}");
        }
        for bad in ["", "Shop", "1a", "a-", "-a", "a_b", "ä", &"a".repeat(64)] {
            assert!(check("name", bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_nearest_form_is_right(text: String) {
            prop_assert!(check("name", &nearest(&text)).is_ok());
        }
    }
}
