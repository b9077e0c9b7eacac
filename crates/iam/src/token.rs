//! Bearer tokens. The cloud keeps only their SHA-256: who reads the store cannot use it to sign in.
//!
//! ```text
//! vt_at_<43 characters of base64url>  --SHA-256-->  claim token/<hex>  -->  row of kind `token`  -->  Principal
//! ```
//!
//! Each request reads the row anew, so a token that was deleted is refused from the next request on.

use base64::Engine as _;
use model::{Code, Error};
use reconcile::Door;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::principal::Principal;

/// The kind whose rows are tokens.
pub const KIND: &str = "token";
/// What every token begins with, so that scanners of source code find one that was published.
pub const PREFIX: &str = "vt_at_";
/// Characters after the prefix: 32 random bytes in base64url.
const BODY_CHARS: usize = 43;
const HASH_PREFIX: &str = "sha256:";

#[derive(Debug, Deserialize)]
struct Spec {
    hash: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    expires_ms: Option<u64>,
}

/// A new token's text. It is shown once and kept nowhere.
pub fn generate() -> String {
    let body: [u8; 32] = world::random::bytes();
    format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(body))
}

/// The form in which a token's row keeps its text: `sha256:<64 hexadecimal digits>`.
pub fn hash(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text).iter().fold(HASH_PREFIX.to_owned(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The name that the row with this hash claims; `None` when it is not a hash as [`hash`] makes them.
pub fn claim(hash: &str) -> Option<String> {
    let hex = hash.strip_prefix(HASH_PREFIX)?;
    let fine = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    fine.then(|| format!("{KIND}/{hex}"))
}

/// Says who shows this token, as the rows are now.
///
/// Errors: `unauthenticated`, without a difference between malformed, unknown, deleted and expired;
/// `unavailable` when the store does not answer.
pub async fn authenticate(door: &Door, bearer_text: &str) -> Result<Principal, Error> {
    let well_formed = bearer_text.strip_prefix(PREFIX).is_some_and(|body| {
        body.len() == BODY_CHARS && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    });
    if !well_formed {
        return Err(refused());
    }
    let hash = hash(bearer_text);
    let name = claim(&hash).ok_or_else(refused)?;
    // Looked up by the hash: how far a guess matches tells nothing about the text.
    let id = door.claim(&name).await?.ok_or_else(refused)?;
    let row = door.get(&id).await?.filter(|row| row.kind == KIND && !row.deleting()).ok_or_else(refused)?;
    let spec: Spec = serde_json::from_value(row.spec).map_err(|_| refused())?;
    if !same(spec.hash.as_bytes(), hash.as_bytes()) || spec.expires_ms.is_some_and(|end| end <= door.clock().now_ms()) {
        return Err(refused());
    }
    let (read_only, expires_ms) = (spec.read_only, spec.expires_ms);
    Ok(Principal { id: row.id, name: row.name, scope: row.scope, read_only, expires_ms })
}

fn refused() -> Error {
    Error::new(Code::Unauthenticated, "the token is not valid")
        .why("it is unknown, deleted or expired")
        .hint("make a new one with `vt token create`, or choose a context with a valid one")
}

/// Compares in a time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0_u8, |found, (a, b)| found | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests;
