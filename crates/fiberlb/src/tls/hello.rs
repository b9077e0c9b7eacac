//! The server name in a ClientHello that arrives in any pieces: over many segments and over several records.
//!
//! Reads RFC 8446 section 4.1.2 and RFC 6066 section 3 as far as the name and no further; what it does not need it
//! does not judge, the backend does. Each byte is looked at a bounded number of times, whatever the pieces.

use crate::host;

/// Bytes of the handshake message. Hellos with post-quantum key shares have about 2 KiB, with an encrypted inner hello
/// and tickets up to some 6 KiB.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Bytes on the wire until the message is complete: room for it in short records, each with a header of 5 bytes.
pub const WIRE_MAX: usize = 24 * 1024;
/// RFC 8446, section 5.1.
const RECORD_MAX: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;

/// What a hello says about where it wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case, without a trailing dot; not checked to be a well-formed host name.
    pub server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first bytes are no TLS handshake record.
    NotTls,
    /// A length is wrong, or the message is no ClientHello.
    Malformed,
    /// Beyond [`MESSAGE_MAX`] or [`WIRE_MAX`].
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Hello(ClientHello),
    Refused(Refusal),
}

/// Collects bytes until they hold a whole hello.
#[derive(Debug, Default)]
pub struct Reader {
    wire: Vec<u8>,
    /// Where in `wire` the first record that is not yet complete begins.
    record: usize,
    message: Vec<u8>,
}

impl Reader {
    pub fn new() -> Self {
        Self::default()
    }

    /// All bytes pushed so far, as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.wire
    }

    /// Takes the next bytes of the connection. Not to be called again after anything but [`Progress::More`].
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        self.wire.extend_from_slice(bytes);
        match self.advance() {
            Ok(Some(hello)) => Progress::Hello(hello),
            Ok(None) if self.wire.len() >= WIRE_MAX => Progress::Refused(Refusal::TooLong),
            Ok(None) => Progress::More,
            Err(refusal) => Progress::Refused(refusal),
        }
    }

    fn advance(&mut self) -> Result<Option<ClientHello>, Refusal> {
        loop {
            let rest = &self.wire[self.record..];
            // Whoever speaks another protocol is told apart by the first bytes already.
            if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
                return Err(if self.record == 0 { Refusal::NotTls } else { Refusal::Malformed });
            }
            let Some(header) = rest.get(..RECORD_HEADER) else { return Ok(None) };
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            // An empty handshake record is forbidden, and would be a way to go on for ever.
            if length == 0 || length > RECORD_MAX {
                return Err(Refusal::Malformed);
            }
            let Some(payload) = rest.get(RECORD_HEADER..RECORD_HEADER + length) else {
                return Ok(None);
            };
            self.message.extend_from_slice(payload);
            self.record += RECORD_HEADER + length;
            if let Some(hello) = complete(&self.message)? {
                return Ok(Some(hello));
            }
        }
    }
}

/// Parses the message once all of it is there.
fn complete(message: &[u8]) -> Result<Option<ClientHello>, Refusal> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Refusal::Malformed);
    }
    let Some(header) = message.get(..MESSAGE_HEADER) else { return Ok(None) };
    let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
    if length > MESSAGE_MAX {
        return Err(Refusal::TooLong);
    }
    match message.get(MESSAGE_HEADER..MESSAGE_HEADER + length) {
        Some(body) => parse(body).map(Some).ok_or(Refusal::Malformed),
        None => Ok(None),
    }
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut body = Cursor(body);
    body.take(2 + 32)?;
    let session = usize::from(body.byte()?);
    if session > 32 {
        return None;
    }
    body.take(session)?;
    body.vector()?;
    let compression = usize::from(body.byte()?);
    body.take(compression)?;
    // A hello of TLS 1.2 may end here.
    if body.0.is_empty() {
        return Some(ClientHello { server_name: None });
    }
    let mut extensions = Cursor(body.vector()?);
    if !body.0.is_empty() {
        return None;
    }
    let mut server_name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.vector()?;
        if kind == EXTENSION_SERVER_NAME {
            // The same extension twice would let two readers see two names.
            if server_name.is_some() {
                return None;
            }
            server_name = Some(host_name(content)?);
        }
    }
    Some(ClientHello { server_name })
}

/// The one host name of a server_name extension.
fn host_name(content: &[u8]) -> Option<String> {
    let mut content = Cursor(content);
    let mut list = Cursor(content.vector()?);
    if !content.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.byte()?;
        let name = list.vector()?;
        if kind == NAME_TYPE_HOST {
            if found.is_some() || name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
                return None;
            }
            found = Some(host::normal(std::str::from_utf8(name).ok()?));
        }
    }
    found
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|taken| u16::from_be_bytes([taken[0], taken[1]]))
    }

    /// Bytes behind a length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::from(count))
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
