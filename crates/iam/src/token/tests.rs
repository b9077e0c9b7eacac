use super::*;
use std::sync::Arc;

use async_trait::async_trait;
use model::{Id, Level, Scope};
use reconcile::{Admission, Admitted, Contract, Kind, Origin, Place, Registry, Report, Turn, Verb, Wish};
use serde_json::json;
use world::Clock;

struct Tokens(Contract);

#[async_trait]
impl Kind for Tokens {
    fn contract(&self) -> &Contract {
        &self.0
    }

    async fn admit(&self, _: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let claims = claim(wish.spec["hash"].as_str().unwrap_or_default()).into_iter().collect();
        Ok(Admitted { spec: wish.spec, claims, ..Admitted::default() })
    }

    async fn turn(&self, _: &Turn) -> Result<Report, Error> {
        Ok(Report::ready())
    }
}

fn tokens(name: &'static str) -> Tokens {
    Tokens(Contract {
        name,
        plural: "tokens",
        prefix: "tok",
        about: "",
        levels: &[Level::Cloud],
        opens: None,
        place: Place::Control,
        create: true,
        set: true,
        delete: true,
        spec: || schemars::json_schema!({}),
        status: || schemars::json_schema!({}),
        phases: &[],
        columns: &[],
        streams: &[],
        example: || json!({}),
    })
}

fn door(kind: &'static str, clock: &Clock) -> Door {
    Door::new(Arc::new(store::memory::Memory::new()), Registry::new(vec![Arc::new(tokens(kind))]), clock.clone())
}

async fn create(door: &Door, kind: &str, spec: serde_json::Value) -> Id {
    let (kind, name) = (kind.to_owned(), format!("t{}", world::random::hex(4)));
    let verb = Verb::Create { kind, scope: Scope::CLOUD, name, spec, owner: None };
    door.one(Origin::system("test"), verb).await.unwrap().row().id
}

async fn code(door: &Door, text: &str) -> Code {
    authenticate(door, text).await.unwrap_err().code
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_or_is_deleted() {
    let clock = Clock::simulated(1_000_000_000);
    let door = door(KIND, &clock);
    let text = generate();
    let id = create(&door, KIND, json!({"hash": hash(&text), "read_only": true, "expires_ms": 2_000})).await;
    let who = authenticate(&door, &text).await.unwrap();
    assert_eq!((who.id.clone(), who.read_only, who.scope), (id.clone(), true, Scope::CLOUD));
    clock.advance(std::time::Duration::from_millis(999));
    assert!(authenticate(&door, &text).await.is_ok());
    clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(code(&door, &text).await, Code::Unauthenticated, "expired");

    let text = generate();
    let id = create(&door, KIND, json!({"hash": hash(&text)})).await;
    assert!(!authenticate(&door, &text).await.unwrap().read_only);
    door.one(Origin::system("test"), Verb::Delete { id: id.clone(), if_version: None }).await.unwrap();
    assert_eq!(code(&door, &text).await, Code::Unauthenticated, "being deleted");
    door.one(Origin::system("test"), Verb::Remove { id }).await.unwrap();
    assert_eq!(code(&door, &text).await, Code::Unauthenticated, "gone");
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_a_difference() {
    let clock = Clock::simulated(1_000_000_000);
    let door = door(KIND, &clock);
    let text = generate();
    create(&door, KIND, json!({"hash": hash(&text)})).await;
    let expected = authenticate(&door, "").await.unwrap_err();
    assert_eq!(expected.code, Code::Unauthenticated);
    let mut longer = text.clone();
    longer.push('A');
    let hash_itself = hash(&text);
    let upper = text.to_uppercase();
    for other in
        ["vt_at_", "vt_at_x", &longer, &text[1..], &text[..48], &hash_itself, &upper, &generate(), "vt_at_\0", "ä"]
    {
        assert_eq!(authenticate(&door, other).await.unwrap_err(), expected, "{other}");
    }
}

#[tokio::test]
async fn a_claim_by_another_kind_is_no_token() {
    let clock = Clock::simulated(1_000_000_000);
    let door = door("impostor", &clock);
    let text = generate();
    create(&door, "impostor", json!({"hash": hash(&text)})).await;
    assert_eq!(code(&door, &text).await, Code::Unauthenticated);
}

#[test]
fn hashes_and_claims_have_one_form() {
    let text = generate();
    assert_eq!(text.len(), PREFIX.len() + BODY_CHARS);
    let hash = hash(&text);
    assert_eq!(claim(&hash), Some(format!("token/{}", &hash[7..])));
    for bad in ["", "sha256:", "sha256:00", &hash.to_uppercase(), &hash[7..], &format!("{hash}0")] {
        assert_eq!(claim(bad), None, "{bad}");
    }
    assert!(same(b"ab", b"ab") && !same(b"ab", b"abc") && !same(b"ab", b"ac") && same(b"", b""));
}
