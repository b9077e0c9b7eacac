//! The file a guest reads: `/run/secrets/platform.env`.
//!
//! First line `# VT_SECRETS_V1`, then `KEY=VALUE` sorted by key, the value raw; a value with a line break or another
//! control character is written `base64:` and its base 64.

use std::collections::BTreeMap;

use base64::Engine as _;
use model::Error;

pub const HEADER: &str = "# VT_SECRETS_V1";
pub const KEYS_MAX: usize = 256;
pub const KEY_BYTES_MAX: usize = 128;
pub const VALUE_BYTES_MAX: usize = 8192;
pub const BASE64_BYTES_MAX: usize = 65_536;
pub const FILE_BYTES_MAX: usize = 256 * 1024;

const PREFIX: &str = "base64:";

/// Checks keys and values against the limits of the format. Errors name the key, never a value.
pub fn check(values: &BTreeMap<String, String>) -> Result<(), Error> {
    if values.len() > KEYS_MAX {
        return Err(Error::invalid(
            "spec.set",
            format!("a bundle holds at most {KEYS_MAX} keys, this has {}", values.len()),
        ));
    }
    for (key, value) in values {
        let shown: String = key.chars().take(KEY_BYTES_MAX).collect();
        let field = format!("spec.set.{shown}");
        let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let rest = key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if !first || !rest || key.len() > KEY_BYTES_MAX {
            let nearest: String =
                key.to_ascii_uppercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let message = format!(
                "`{shown}` is not a key: use A-Z, 0-9 and _, at most {KEY_BYTES_MAX}, not beginning with a digit"
            );
            return Err(Error::invalid(field, message).hint(format!("the nearest right form is `{nearest}`")));
        }
        let (bytes, limit) =
            if plain(value) { (value.len(), VALUE_BYTES_MAX) } else { (value.len().div_ceil(3) * 4, BASE64_BYTES_MAX) };
        if bytes > limit {
            return Err(Error::invalid(
                field,
                format!("the value of `{key}` takes {bytes} bytes, at most {limit} are allowed"),
            ));
        }
    }
    let bytes = render(values).len();
    if bytes > FILE_BYTES_MAX {
        return Err(Error::invalid(
            "spec.set",
            format!("the bundle takes {bytes} bytes, at most {FILE_BYTES_MAX} are allowed"),
        ));
    }
    Ok(())
}

fn plain(value: &str) -> bool {
    !value.chars().any(char::is_control) && !value.starts_with(PREFIX)
}

/// The whole file.
pub fn render(values: &BTreeMap<String, String>) -> String {
    let mut file = format!("{HEADER}\n");
    for (key, value) in values {
        file.push_str(key);
        file.push('=');
        if plain(value) {
            file.push_str(value);
        } else {
            file.push_str(PREFIX);
            base64::engine::general_purpose::STANDARD.encode_string(value, &mut file);
        }
        file.push('\n');
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_file_is_sorted_and_odd_values_are_base64() {
        let values = bundle(&[("B", "two words = raw"), ("A", "line\nbreak"), ("C", "base64:x")]);
        check(&values).unwrap();
        let expected = "# VT_SECRETS_V1\nA=base64:bGluZQpicmVhaw==\nB=two words = raw\nC=base64:YmFzZTY0Ong=\n";
        assert_eq!(render(&values), expected);
    }

    #[test]
    fn limits_name_the_key_and_never_the_value() {
        let long = "v".repeat(VALUE_BYTES_MAX + 1);
        let error = check(&bundle(&[("TOKEN", &long)])).unwrap_err();
        assert!(error.message.contains("TOKEN") && !error.message.contains("vvv"));
        assert!(check(&bundle(&[("lower", "x")])).unwrap_err().hint.contains("LOWER"));
        assert!(check(&bundle(&[("1A", "x")])).is_err());
        let many = (0..=KEYS_MAX).map(|n| (format!("K{n}"), String::new())).collect();
        assert!(check(&many).is_err());
    }
}
