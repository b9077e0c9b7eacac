//! Passwords: PBKDF2-HMAC-SHA256 (RFC 8018) with a salt for each.

use std::num::NonZeroU32;

use ring::pbkdf2;
use tokio::sync::Semaphore;

use super::rows::Password;

/// Passwords that are worked on at once: each takes a processor for a while, and others want to go on.
const AT_ONCE: usize = 2;

/// Longer ones are refused; etcd's bcrypt looks at no more than this.
pub const PASSWORD_BYTES_MAX: usize = 72;

static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);

async fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let _room = ROOM.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}

fn rounds(rounds: u32) -> NonZeroU32 {
    NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN)
}

/// `None` when the process is ending.
pub async fn hash(password: String, rounds: u32) -> Option<Password> {
    work(move || {
        let salt = world::random::bytes();
        let mut hash = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, self::rounds(rounds), &salt, password.as_bytes(), &mut hash);
        Password { rounds, salt, hash }
    })
    .await
}

pub async fn is_right(known: Password, password: String) -> bool {
    let check = move || {
        let rounds = rounds(known.rounds);
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &known.salt, password.as_bytes(), &known.hash).is_ok()
    };
    work(check).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_for_its_own_hash_alone() {
        let one = hash("secret".into(), 1000).await.unwrap();
        let other = hash("secret".into(), 1000).await.unwrap();
        assert_ne!(one, other, "each has its salt");
        assert!(is_right(one.clone(), "secret".into()).await);
        assert!(!is_right(one.clone(), "secreT".into()).await);
        assert!(!is_right(one.clone(), String::new()).await);
        assert!(!is_right(Password { rounds: 999, ..one }, "secret".into()).await);
    }
}
