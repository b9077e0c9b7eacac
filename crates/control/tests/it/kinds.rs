//! Kinds that stand in for real ones. Their names are none of the product's, so nothing can depend on those.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::{Error, Level, Reason, Row};
use reconcile::kind::{Column, Demand, StreamContract, read};
use reconcile::{Admission, Admitted, Contract, Kind, Next, Place, Registry, Report, Stream, Turn, Wish};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn contract(name: &'static str, plural: &'static str, prefix: &'static str) -> Contract {
    Contract {
        name,
        plural,
        prefix,
        about: "A kind for tests.",
        levels: &[Level::Cloud],
        opens: None,
        place: Place::Control,
        create: true,
        set: true,
        delete: true,
        spec: || schema_for!(Thing),
        status: || schema_for!(Status),
        phases: &["pending", "ready", "failed"],
        columns: &[Column { title: "PHASE", pointer: "/phase" }],
        streams: &[],
        example: || json!({"text": "hello"}),
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thing {
    #[serde(default)]
    pub text: String,
    #[serde(default)]
    pub part: Part,
    /// `ready` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    #[serde(default)]
    pub size: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    pub seen: String,
}

/// What a kind does, by function, so that each stands on one line below.
pub struct Plain {
    pub contract: Contract,
    demand: Option<Demand>,
    capacity: Option<Demand>,
}

const MIB: u64 = model::unit::MIB;
const PARAMETERS: &[(&str, &str)] = &[("count", "How many lines."), ("follow", "Whether to go on.")];

/// All kinds of the test cloud: one for each scope level, tokens, a thing with streams, and nodes with work.
pub fn registry() -> Registry {
    let scoped = |name, plural, prefix, levels, opens| Plain {
        contract: Contract { levels, opens: Some(opens), ..contract(name, plural, prefix) },
        demand: None,
        capacity: None,
    };
    let plain = |contract| Plain { contract, demand: None, capacity: None };
    let streams = &[
        StreamContract { name: "lines", about: "Lines.", duplex: false, parameters: PARAMETERS },
        StreamContract { name: "talk", about: "An echo.", duplex: true, parameters: &[] },
    ];
    let thing = Contract { levels: &[Level::Project], streams, ..contract("thing", "things", "thg") };
    let token = Contract {
        levels: &[Level::Cloud, Level::Org, Level::Project],
        set: false,
        spec: || schemars::json_schema!({"type": "object"}),
        example: || json!({"hash": format!("sha256:{}", "0".repeat(64))}),
        ..contract(iam::token::KIND, "tokens", "tok")
    };
    let fixed = Contract {
        levels: &[Level::Project],
        create: false,
        set: false,
        delete: false,
        ..contract("fixed", "fixeds", "fix")
    };
    let host = Contract { place: Place::EveryNode, ..contract("host", "hosts", "hst") };
    let job = Contract { levels: &[Level::Project], place: Place::AssignedNode, ..contract("job", "jobs", "job") };
    Registry::new(vec![
        Arc::new(scoped("tenant", "tenants", "ten", &[Level::Cloud], Level::Org)),
        Arc::new(scoped("area", "areas", "are", &[Level::Org], Level::Project)),
        Arc::new(plain(thing)),
        Arc::new(plain(fixed)),
        Arc::new(Token(token)),
        Arc::new(Plain { capacity: Some(Demand { memory_bytes: 100 * MIB, cpu_milli: 1000 }), ..plain(host) }),
        Arc::new(Plain { demand: Some(Demand { memory_bytes: 60 * MIB, cpu_milli: 100 }), ..plain(job) }),
    ])
}

#[async_trait]
impl Kind for Plain {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    async fn admit(&self, _: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        Admitted::spec(&read::<Thing>("spec", &wish.spec)?)
    }

    fn demand(&self, _: &Row) -> Option<Demand> {
        self.demand
    }

    fn capacity(&self, _: &Row) -> Option<Demand> {
        self.capacity
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        let thing: Thing = read("spec", &turn.row.spec)?;
        let status = json!({"seen": thing.text});
        Ok(match thing.phase.as_deref() {
            // Stays although it was asked to go.
            Some("stuck") => Report { next: Next::Wait, phase: "stuck".into(), ..Report::ready() },
            Some("failed") if !turn.row.deleting() => {
                let reason = Some(Reason::fault("broken", "it does not work", "mend it"));
                Report { phase: "failed".into(), reason, status, next: Next::Wait }
            }
            Some("slow") if !turn.row.deleting() => {
                let reason = Some(Reason::waiting("working", "still at it"));
                Report { phase: "slow".into(), reason, status, next: Next::Wait }
            }
            _ => Report { status, ..Report::ready() },
        })
    }

    fn progress(&self, row: &Row) -> Option<Value> {
        (row.phase == "slow").then(|| json!({"what": "work", "done": 1, "total": 2, "unit": "steps"}))
    }

    async fn stream(&self, row: &Row, name: &str, parameters: Value) -> Result<Stream, Error> {
        let (stream, mut far) = reconcile::stream::pair();
        let row = row.id.to_string();
        match name {
            "lines" => {
                let count: u64 = parameters["count"].as_str().and_then(|text| text.parse().ok()).unwrap_or(3);
                let follow = parameters["follow"] == "true";
                tokio::spawn(async move {
                    for number in 0..count {
                        let line = json!({"row": row, "number": number}).to_string();
                        if far.output.send(line.into()).await.is_err() {
                            return;
                        }
                    }
                    if follow {
                        // Until the caller hangs up.
                        far.input.recv().await;
                    }
                });
            }
            "talk" if parameters["request"]["refuse"] == true => {
                return Err(Error::new(model::Code::Conflict, "it does not want to talk"));
            }
            _ => {
                tokio::spawn(async move {
                    let hello = parameters["request"]["hello"].to_string();
                    let _ = far.output.send(hello.into()).await;
                    while let Some(frame) = far.input.recv().await {
                        if &frame[..] == b"end" {
                            return;
                        }
                        let mut echo = b"echo ".to_vec();
                        echo.extend_from_slice(&frame);
                        if far.output.send(Bytes::from(echo)).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
        Ok(stream)
    }
}

struct Token(Contract);

#[async_trait]
impl Kind for Token {
    fn contract(&self) -> &Contract {
        &self.0
    }

    async fn admit(&self, _: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let claim = iam::token::claim(wish.spec["hash"].as_str().unwrap_or_default());
        let claim = claim.ok_or_else(|| Error::invalid("spec.hash", "not a hash"))?;
        Ok(Admitted { claims: vec![claim], spec: wish.spec, ..Admitted::default() })
    }

    async fn turn(&self, _: &Turn) -> Result<Report, Error> {
        Ok(Report::ready())
    }
}
