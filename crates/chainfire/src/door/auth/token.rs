//! Tokens: who they were given to is written in them, and signed, so that every member of the cluster knows them.
//!
//! ```text
//!   base64url( version 1 · issued, ms u64 · revision of the password u64 · nonce 8 · name … · HMAC-SHA256 32 )
//! ```
//!
//! The signing key is a system row, drawn anew whenever authentication goes on. A token is worth something while it is
//! younger than its time to live, or was used on this member within that time; another password for the user or a key
//! drawn anew ends it at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::hmac;
use tokio::time::Instant;
use world::Clock;

use super::View;
use super::rows::State;

/// Tokens that this member remembers the last use of. Beyond that those that expired go, and else the oldest.
const HELD_MAX: usize = 65_536;

/// Longer ones are not looked at.
const TOKEN_BYTES_MAX: usize = 4096;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 8;
const MAC_BYTES: usize = 32;

pub struct Tokens {
    ttl: Duration,
    clock: Clock,
    held: Mutex<HashMap<Box<str>, Held>>,
}

struct Held {
    user: Arc<str>,
    since: u64,
    secret: [u8; 32],
    used: Instant,
}

struct Told {
    issued_ms: u64,
    since: u64,
    user: String,
}

impl Tokens {
    pub fn new(ttl: Duration, clock: Clock) -> Self {
        Self { ttl, clock, held: Mutex::default() }
    }

    /// A new token for a user whose password was set at revision `since`.
    pub fn issue(&self, state: &State, user: &str, since: u64) -> String {
        let mut nonce = [0; NONCE_BYTES];
        world::random::fill(&mut nonce);
        let mut bytes = vec![VERSION];
        bytes.extend(self.clock.now_ms().to_be_bytes());
        bytes.extend(since.to_be_bytes());
        bytes.extend(nonce);
        bytes.extend(user.as_bytes());
        let mac = hmac::sign(&key(state), &bytes);
        bytes.extend(mac.as_ref());
        let token = URL_SAFE_NO_PAD.encode(bytes);
        self.hold(&token, Held { user: user.into(), since, secret: state.secret, used: Instant::now() });
        token
    }

    /// Whose token it is, and starts its time anew; `None` when it is worth nothing.
    pub fn whose(&self, view: &View, token: &str) -> Option<Arc<str>> {
        let state = &view.auth.state;
        let since = |user: &str| view.auth.users.get(user).map(|user| user.since);
        if let Some(held) = self.held.lock().get_mut(token)
            && held.used.elapsed() < self.ttl
        {
            let good = held.secret == state.secret && since(&held.user) == Some(held.since);
            held.used = Instant::now();
            return good.then(|| held.user.clone());
        }
        let told = read(state, token)?;
        let age_ms = self.clock.now_ms().abs_diff(told.issued_ms);
        if u128::from(age_ms) >= self.ttl.as_millis() || since(&told.user) != Some(told.since) {
            return None;
        }
        let user: Arc<str> = told.user.into();
        let held = Held { user: user.clone(), since: told.since, secret: state.secret, used: Instant::now() };
        self.hold(token, held);
        Some(user)
    }

    fn hold(&self, token: &str, new: Held) {
        let mut held = self.held.lock();
        if held.len() >= HELD_MAX {
            held.retain(|_, held| held.used.elapsed() < self.ttl);
        }
        if held.len() >= HELD_MAX
            && let Some(oldest) = held.iter().min_by_key(|(_, held)| held.used).map(|(token, _)| token.clone())
        {
            held.remove(&oldest);
        }
        held.insert(token.into(), new);
    }
}

fn key(state: &State) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &state.secret)
}

fn read(state: &State, token: &str) -> Option<Told> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
    hmac::verify(&key(state), signed, mac).ok()?;
    let (version, rest) = signed.split_first()?;
    let (issued_ms, rest) = rest.split_first_chunk::<8>()?;
    let (since, rest) = rest.split_first_chunk::<8>()?;
    let (_nonce, user) = rest.split_first_chunk::<NONCE_BYTES>()?;
    if *version != VERSION {
        return None;
    }
    Some(Told {
        issued_ms: u64::from_be_bytes(*issued_ms),
        since: u64::from_be_bytes(*since),
        user: String::from_utf8(user.to_vec()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::auth::rows::{User, state_row, user_row};
    use crate::door::host::System;

    const TTL: Duration = Duration::from_mins(5);

    fn state(secret: u8) -> State {
        State { enabled: true, revision: 5, secret: [secret; 32] }
    }

    fn view(secret: u8, since: u64) -> View {
        let rows = [state_row(&state(secret)), user_row("u", Some(&User { since, ..User::default() }))];
        View::new(&System { version: 1, rows: rows.into_iter().filter_map(|(key, row)| Some((key, row?))).collect() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_known_to_every_member_for_its_time_and_used_ones_live_on() {
        let clock = Clock::simulated(1_000_000_000_000);
        let (here, there) = (Tokens::new(TTL, clock.clone()), Tokens::new(TTL, clock.clone()));
        let token = here.issue(&state(1), "u", 2);
        let view = view(1, 2);
        assert_eq!(there.whose(&view, &token).as_deref(), Some("u"));
        let pass = async |by: Duration| {
            clock.advance(by);
            tokio::time::advance(by).await;
        };
        pass(Duration::from_secs(299)).await;
        assert_eq!(here.whose(&view, &token).as_deref(), Some("u"));
        pass(Duration::from_secs(2)).await;
        assert_eq!(here.whose(&view, &token).as_deref(), Some("u"), "it was used here");
        assert_eq!(there.whose(&view, &token), None, "but not there");
        pass(TTL).await;
        assert_eq!(here.whose(&view, &token), None);
    }

    #[tokio::test]
    async fn another_password_another_key_or_another_hand_end_it() {
        let tokens = Tokens::new(TTL, Clock::real());
        let token = tokens.issue(&state(1), "u", 2);
        assert!(tokens.whose(&view(1, 2), &token).is_some());
        assert!(tokens.whose(&view(1, 3), &token).is_none(), "another password");
        assert!(tokens.whose(&view(2, 2), &token).is_none(), "another key");
        let fresh = Tokens::new(TTL, Clock::real());
        assert!(fresh.whose(&view(2, 2), &token).is_none());
        assert!(fresh.whose(&view(1, 3), &token).is_none());
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            // The last letter carries bits that mean nothing, which a strict decoder refuses too.
            assert!(fresh.whose(&view(1, 2), &forged).is_none(), "{at}");
        }
        assert!(fresh.whose(&view(1, 2), "").is_none());
        assert!(fresh.whose(&view(1, 2), &"x".repeat(TOKEN_BYTES_MAX + 1)).is_none());
    }
}
