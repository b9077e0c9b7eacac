//! One header block.

pub const BLOCK_BYTES: usize = 512;

/// What a member is, or what it says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Folder,
    Fifo,
    GnuSparse,
    PaxNext,
    PaxGlobal,
    GnuLongName,
    GnuLongLink,
    Other(u8),
}

/// The fields of one header, as written. Sizes and times may be replaced by extensions.
#[derive(Debug)]
pub struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime_s: i64,
}

pub type Block = [u8; BLOCK_BYTES];

pub fn is_zero(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// The header in `block`, or what is wrong with it.
pub fn parse(block: &Block) -> Result<Header, &'static str> {
    let wanted = number(&block[148..156]).ok_or("has no checksum")?;
    // Old writers summed signed bytes.
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (place, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&place) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    if wanted != unsigned && wanted != signed {
        return Err("has a wrong checksum");
    }
    let is_ustar = &block[257..263] == b"ustar\0";
    let mut name = text(&block[..100]).to_vec();
    if is_ustar && block[345] != 0 {
        let prefix = text(&block[345..500]);
        name = [prefix, b"/", &name].concat();
    }
    let kind = match block[156] {
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        b'S' => Kind::GnuSparse,
        b'x' => Kind::PaxNext,
        b'g' => Kind::PaxGlobal,
        b'L' => Kind::GnuLongName,
        b'K' => Kind::GnuLongLink,
        other => Kind::Other(other),
    };
    Ok(Header {
        name,
        link: text(&block[157..257]).to_vec(),
        kind,
        mode: (number(&block[100..108]).ok_or("has an unreadable mode")? & 0o7777) as u32,
        uid: number(&block[108..116]).ok_or("has an unreadable owner")?,
        gid: number(&block[116..124]).ok_or("has an unreadable group")?,
        size: number(&block[124..136]).ok_or("has an unreadable size")?,
        mtime_s: number(&block[136..148]).ok_or("has an unreadable time")?,
    })
}

/// Up to the first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between spaces and NULs, or GNU's base 256 where the first bit is set. An empty field is 0.
pub fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement over the whole field but for the marker bit.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (place, byte) in field.iter().enumerate() {
            let byte = match (place, negative) {
                (0, false) => byte & 0x7f,
                (0, true) => byte | 0x80,
                _ => *byte,
            };
            value = value.checked_mul(256)? | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let digits: &[u8] = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o77777777777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]), None);
        assert_eq!(number(b"00009\0\0\0"), None);
        assert_eq!(number(b"1 2 3\0\0\0"), None);
        assert_eq!(number(b"-1\0\0\0\0\0\0"), None);
        assert_eq!(number(b""), None);
    }
}
