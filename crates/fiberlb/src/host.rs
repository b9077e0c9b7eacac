//! Host names: the one form in which they are configured, and how a client's spelling is brought to it.

/// RFC 1035: 253 characters without the trailing dot, labels of 63.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Says why `name` is not in the configured form: lower-case letters, digits and inner hyphens, labels joined by dots,
/// international labels as `xn--`; no port, no trailing dot, no address, no wildcard.
pub fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > NAME_MAX {
        return Err("it is longer than 253 characters");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("it has capital letters");
    }
    if !name.is_ascii() {
        return Err("it has letters outside ASCII; use the xn-- form");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("it has an empty label");
        }
        if label.len() > LABEL_MAX {
            return Err("a label is longer than 63 characters");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label begins or ends with a hyphen");
        }
        if !label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err("it has characters other than letters, digits, hyphens and dots");
        }
    }
    // A last label of digits alone would be an IPv4 address or look like one.
    if name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("it looks like an address");
    }
    Ok(())
}

/// A client's spelling of a name in the configured form: lower case, without one trailing dot.
///
/// Does not check: a name that is not well formed matches no route, and that is all that happens to it.
pub fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The host of a `Host` header or an authority: `NAME`, `NAME:PORT` or `[ADDRESS]:PORT`, normalised.
///
/// `None` where it is none: user info, a port that is no number, empty, bytes that no name has.
pub fn of_authority(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > NAME_MAX + 7 {
        return None;
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if !text.bytes().all(allowed) {
        return None;
    }
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        (address, after.strip_prefix(':').or(after.is_empty().then_some("")))
    } else {
        let (name, port) = text.split_once(':').unwrap_or((text, ""));
        if name.contains(['[', ']']) {
            return None;
        }
        (name, Some(port))
    };
    let port = port?;
    if name.is_empty() || !(port.is_empty() || port.parse::<u16>().is_ok()) {
        return None;
    }
    Some(normal(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_names_have_one_form() {
        for good in ["a", "web-prod.vt.localhost", "xn--bcher-kva.example", "1password.com", "a.b1"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        let longest = format!("{}a", "a.".repeat(130));
        for bad in [
            "",
            "A.example",
            "bücher.example",
            "a..b",
            ".a",
            "a.",
            "-a.b",
            "a-.b",
            "*.example",
            "a_b.c",
            "a b",
            "10.0.0.1",
            "a:80",
            &long,
            &longest,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn authorities_lose_port_case_and_dot() {
        for (text, host) in [
            ("Example.COM", Some("example.com")),
            ("example.com.:8080", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("a_b.example", Some("a_b.example")),
            ("[::1]:80", Some("::1")),
            ("[::1]", Some("::1")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("user@example.com", None),
            ("example.com:80:90", None),
            ("example.com:http", None),
            ("example.com:99999", None),
            ("a/b", None),
            ("a b", None),
            (":80", None),
            ("", None),
            ("[::1", None),
            ("[x]:80", None),
            ("a]b", None),
            ("[::1]x", None),
        ] {
            assert_eq!(of_authority(text).as_deref(), host, "{text}");
        }
    }
}
