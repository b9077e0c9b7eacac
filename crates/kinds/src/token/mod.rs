//! A token: what a caller shows. The text is made by the caller; the cloud only ever sees its hash at creation.

mod contract;

pub use contract::{Spec, contract};

use async_trait::async_trait;
use model::{Error, Reason};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Next, Report, Turn, Wish};

#[derive(Debug)]
pub struct Token;

/// The claim by which a shown token is found: its SHA-256 in hexadecimal.
fn claim(hash: &str) -> Result<String, Error> {
    let hex = hash.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    let hex = hex.ok_or_else(|| {
        Error::invalid(
            "spec.hash",
            "`spec.hash` is not a SHA-256: expected `sha256:` and 64 lower-case hexadecimal digits",
        )
        .hint("send the hash of the token's text, never the text")
    })?;
    Ok(format!("token/{hex}"))
}

#[async_trait]
impl Kind for Token {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        if spec.expires_ms.is_some_and(|at| at <= cx.now_ms) {
            return Err(Error::invalid("spec.expires_ms", "`spec.expires_ms` has passed already"));
        }
        Ok(Admitted { claims: vec![claim(&spec.hash)?], ..Admitted::spec(&spec)? })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        let spec: Spec = read("spec", &turn.row.spec)?;
        let now = turn.now_ms();
        Ok(match spec.expires_ms {
            Some(at) if at <= now && !turn.row.deleting() => {
                let reason = Reason::fault("token_expired", "the token has expired", "vt token create");
                Report { phase: "expired".into(), reason: Some(reason), next: Next::Wait, ..Report::ready() }
            }
            Some(at) if !turn.row.deleting() => Report { next: Next::After(at - now), ..Report::ready() },
            _ => Report::ready(),
        })
    }
}
