//! What precedes a member's header: pax records and GNU's long names.

use std::collections::BTreeMap;

/// One extension's data. Paths have 4 KiB and attributes 64 KiB; nothing honest comes near this.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Records of one extension.
const RECORDS_MAX: usize = 4096;

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Extensions that hold for the next member, or for all that follow.
#[derive(Clone, Debug, Default)]
pub struct Extension {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// Seconds, and nanoseconds from 0 to 999,999,999.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Sparse,
}

/// The `GNU.sparse.*` records.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    pub version: (Option<i64>, Option<i64>),
    pub name: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub map: Option<Vec<i64>>,
    /// Version 0.0 repeats an offset and a length.
    pub pairs: Vec<i64>,
}

impl Extension {
    /// Reads `LENGTH KEYWORD=VALUE\n` records over what is already there. An empty value takes a record back.
    pub fn read_pax(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        let mut records = 0;
        while !data.is_empty() {
            // Some writers pad with NULs.
            if data.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            records += 1;
            if records > RECORDS_MAX {
                return Err("has too many pax records");
            }
            let space = data.iter().take(12).position(|byte| *byte == b' ').ok_or("has a pax record without length")?;
            let length = decimal(&data[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length > space + 1 && *length <= data.len());
            let length = length.ok_or("has a pax record of wrong length")?;
            let (record, rest) = data.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or("has a pax record without end")?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("has a pax record without value")?;
            self.set(&record[..equals], &record[equals + 1..])?;
            data = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let present = (!value.is_empty()).then_some(value);
        let name = |value: Option<&[u8]>| match value {
            Some(value) if value.contains(&0) => Err("has a NUL in its name"),
            value => Ok(value.map(<[u8]>::to_vec)),
        };
        let integer = |value: Option<&[u8]>| match value {
            Some(value) => decimal(value).map(Some).ok_or("has an unreadable number in a pax record"),
            None => Ok(None),
        };
        match key {
            b"path" => self.path = name(present)?,
            b"linkpath" => self.link = name(present)?,
            b"size" => self.size = integer(present)?,
            b"uid" => self.uid = integer(present)?,
            b"gid" => self.gid = integer(present)?,
            b"mtime" => self.mtime = present.map(time).transpose()?,
            b"GNU.sparse.major" => self.sparse.version.0 = integer(present)?,
            b"GNU.sparse.minor" => self.sparse.version.1 = integer(present)?,
            b"GNU.sparse.name" => self.sparse.name = name(present)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = integer(present)?,
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Option<Vec<_>>>();
                self.sparse.map = Some(numbers.ok_or("has an unreadable map of holes")?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.pairs.push(decimal(value).ok_or("has an unreadable map of holes")?);
            }
            key => {
                if let Some(attribute) = key.strip_prefix(XATTR_PREFIX) {
                    if attribute.is_empty() || attribute.len() > 255 || attribute.contains(&0) {
                        return Err("has an extended attribute with an impossible name");
                    }
                    self.xattrs.insert(attribute.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

pub fn decimal(text: &[u8]) -> Option<i64> {
    let (digits, negative) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    Some(if negative { -value } else { value })
}

/// Seconds with an optional fraction, finer than nanoseconds cut off.
fn time(text: &[u8]) -> Result<(i64, u32), &'static str> {
    const UNREADABLE: &str = "has an unreadable time";
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = decimal(whole).ok_or(UNREADABLE)?;
    let mut nanoseconds = 0_u32;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(UNREADABLE)?;
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    // A negative time counts its fraction backwards.
    if text.starts_with(b"-") && nanoseconds > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_wrong_lengths_refused() {
        let mut extension = Extension::default();
        extension.read_pax(b"11 path=a/b\n20 mtime=12.5000000\n25 SCHILY.xattr.user.x=\x01\n").unwrap_err();
        let mut extension = Extension::default();
        extension.read_pax(b"12 path=a/b\n19 mtime=12.500000\n25 SCHILY.xattr.user.x=\x01\n").unwrap();
        assert_eq!(extension.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(extension.mtime, Some((12, 500_000_000)));
        assert_eq!(extension.xattrs[&b"user.x"[..]], [1]);
        for wrong in
            [&b"9999 path=a\n"[..], b"0 a=b\n", b"-5 a=b\n", b"99999999999999999999 a=b\n", b"5 a\n", b"7 ab=c", b"x"]
        {
            assert!(Extension::default().read_pax(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_negative() {
        assert_eq!(time(b"1"), Ok((1, 0)));
        assert_eq!(time(b"1.25"), Ok((1, 250_000_000)));
        assert_eq!(time(b"-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(time(b"1.1234567899"), Ok((1, 123_456_789)));
        assert!(time(b"x").is_err() && time(b"").is_err() && time(b"1.x").is_err());
    }
}
