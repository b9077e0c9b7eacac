//! Envelope encryption: each content has a data key of its own, wrapped by the master key outside the store.
//!
//! ```text
//! 1 | key id 8 | nonce 12 | wrapped data key 32+16 | nonce 12 | content n+16
//!   '------------- AES-256-GCM, master key --------'----------- AES-256-GCM, data key
//!   both bound to the first nine bytes and to the caller's context: content moved to another row does not open
//! ```
//!
//! The key file holds one key a line, `vt-master-key-v1 <base64>`. The last line seals; every line opens, so that a
//! key can be changed by adding a line.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Error;

/// The form that is written.
const FORM: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const WRAPPED_BYTES: usize = NONCE_LEN + KEY_BYTES + TAG_BYTES;
const LINE_WORD: &str = "vt-master-key-v1";
/// Master keys in one file.
const KEYS_MAX: usize = 64;

struct Master {
    id: [u8; KEY_ID_BYTES],
    key: LessSafeKey,
}

/// Seals and opens. Holds the master keys; never shows them.
pub struct Sealer {
    path: PathBuf,
    /// The last one seals. Never empty.
    masters: Vec<Master>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the key file, or makes one with a new key, readable by its owner alone.
    pub fn open_or_create(key_file: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: key_file.to_owned(), source };
        let text = match world::file::read_optional(key_file).map_err(read)? {
            Some(bytes) => Zeroizing::new(bytes),
            None => {
                let key = Zeroizing::new(world::random::bytes::<KEY_BYTES>());
                let line = Zeroizing::new(format!("{LINE_WORD} {}\n", *Zeroizing::new(STANDARD.encode(*key))));
                let write = |source| Error::Write { path: key_file.to_owned(), source };
                world::file::write_atomic(key_file, line.as_bytes(), 0o600).map_err(write)?;
                Zeroizing::new(line.as_bytes().to_vec())
            }
        };
        let malformed = |what: &str| Error::Malformed { path: key_file.to_owned(), what: what.to_owned() };
        let text = std::str::from_utf8(&text).map_err(|_| malformed("it is not text"))?;
        let mut masters = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let word =
                line.strip_prefix(LINE_WORD).ok_or_else(|| malformed("a line does not begin with vt-master-key-v1"))?;
            let key = Zeroizing::new(STANDARD.decode(word.trim()).map_err(|_| malformed("a key is not base64"))?);
            if key.len() != KEY_BYTES || masters.len() == KEYS_MAX {
                return Err(malformed("it must hold 1 to 64 keys of 32 bytes"));
            }
            masters.push(Master { id: key_id(&key), key: aead_key(&key) });
        }
        if masters.is_empty() {
            return Err(malformed("it holds no key"));
        }
        Ok(Self { path: key_file.to_owned(), masters })
    }

    /// Encrypts `plaintext` for the context `aad`. Two calls never give the same bytes.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let master = self.masters.last().expect("a sealer has a key");
        let mut out = Vec::with_capacity(HEADER_BYTES + WRAPPED_BYTES + NONCE_LEN + plaintext.len() + TAG_BYTES);
        out.push(FORM);
        out.extend_from_slice(&master.id);
        let context = context(&out, aad);
        let data_key = Zeroizing::new(world::random::bytes::<KEY_BYTES>());
        encrypt(&master.key, &context, &*data_key, &mut out);
        encrypt(&aead_key(&*data_key), &context, plaintext, &mut out);
        out
    }

    /// Decrypts what [`Sealer::seal`] made for the same `aad`.
    ///
    /// Errors: [`Error::Open`] for another context or changed bytes, [`Error::KeyUnknown`], [`Error::FormUnknown`].
    pub fn open(&self, aad: &[u8], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        match bytes.first() {
            Some(&FORM) => {}
            Some(&found) => return Err(Error::FormUnknown { found, known: FORM }),
            None => return Err(Error::Open),
        }
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Error::Open)?;
        let (wrapped, content) = rest.split_at_checked(WRAPPED_BYTES).ok_or(Error::Open)?;
        let id = &header[1..];
        let master = self.masters.iter().find(|master| master.id == id).ok_or_else(|| Error::KeyUnknown {
            found: format!("{:016x}", u64::from_be_bytes(id.try_into().expect("an id has eight bytes"))),
            path: self.path.clone(),
        })?;
        let context = context(header, aad);
        let data_key = decrypt(&master.key, &context, wrapped)?;
        decrypt(&aead_key(&data_key), &context, content)
    }
}

fn context(header: &[u8], aad: &[u8]) -> Vec<u8> {
    [header, aad].concat()
}

fn key_id(key: &[u8]) -> [u8; KEY_ID_BYTES] {
    let digest = Sha256::new().chain_update(b"vt master key id").chain_update(key).finalize();
    digest[..KEY_ID_BYTES].try_into().expect("a digest is longer than an id")
}

fn aead_key(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes"))
}

fn encrypt(key: &LessSafeKey, context: &[u8], plaintext: &[u8], out: &mut Vec<u8>) {
    // A random nonce is safe: a data key encrypts once, and a master key wraps far fewer than 2^32 data keys.
    let nonce = world::random::bytes::<NONCE_LEN>();
    let mut buffer = Zeroizing::new(plaintext.to_vec());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut buffer)
        .expect("the content is shorter than 64 GiB");
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&buffer);
    out.extend_from_slice(tag.as_ref());
}

fn decrypt(key: &LessSafeKey, context: &[u8], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, content) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(Error::Open)?;
    let mut buffer = Zeroizing::new(content.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = key.open_in_place(nonce, Aad::from(context), &mut buffer).map_err(|_| Error::Open)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(name: &str) -> (tempfile::TempDir, Sealer) {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&folder.path().join(name)).unwrap();
        (folder, sealer)
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_context_alone_also_after_a_restart() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, first) = sealer("key");
        let path = folder.path().join("key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = first.seal(b"env_1/7", b"DB_PASSWORD=hunter2");
        assert_ne!(sealed, first.seal(b"env_1/7", b"DB_PASSWORD=hunter2"));
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        let again = Sealer::open_or_create(&path).unwrap();
        assert_eq!(**again.open(b"env_1/7", &sealed).unwrap(), *b"DB_PASSWORD=hunter2");
        assert!(matches!(again.open(b"env_2/7", &sealed), Err(Error::Open)));
        let empty = again.seal(b"x", b"");
        assert!(again.open(b"x", &empty).unwrap().is_empty());
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_refused() {
        let (_folder, sealer) = sealer("key");
        let sealed = sealer.seal(b"a", b"secret");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(sealer.open(b"a", &changed).is_err(), "byte {place}");
            assert!(sealer.open(b"a", &sealed[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn an_added_key_seals_and_the_old_one_still_opens() {
        let (folder, old) = sealer("key");
        let (other_folder, other) = sealer("other");
        let before = old.seal(b"a", b"1");
        assert!(matches!(other.open(b"a", &before), Err(Error::KeyUnknown { .. })));
        let lines = [
            std::fs::read(folder.path().join("key")).unwrap(),
            std::fs::read(other_folder.path().join("other")).unwrap(),
        ];
        let path = folder.path().join("both");
        std::fs::write(&path, lines.concat()).unwrap();
        let both = Sealer::open_or_create(&path).unwrap();
        assert_eq!(**both.open(b"a", &before).unwrap(), *b"1");
        assert_eq!(**other.open(b"a", &both.seal(b"a", b"2")).unwrap(), *b"2");
    }

    #[test]
    fn a_broken_key_file_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("empty", ""), ("word", "key abc"), ("short", "vt-master-key-v1 AAAA"), ("base64", "vt-master-key-v1 !!")]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Sealer::open_or_create(&path), Err(Error::Malformed { .. })), "{name}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
