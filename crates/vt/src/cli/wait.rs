use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use model::Code;
use serde_json::{Value, json};

use super::complete;
use super::session::Session;
use crate::client::nouns::Noun;
use crate::client::{Api, Item, Target, WAIT_SECONDS_MAX};
use crate::failure::{Failure, Outcome};
use crate::output::text;

/// How long is waited when nobody says.
pub const DEFAULT_SECONDS: u64 = 300;
/// The longest that can be asked for.
const SECONDS_MAX: u64 = 24 * 3600;
/// How long the server holds one question.
const HOLD_SECONDS: u64 = 60;

/// Waits until something is as wished, or gone
///
/// Ends with 0 when it is, with 1 and the reason when it failed, and with 7 and what is in the way when the time is up.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt wait d3
  vt wait vm/web-1 --timeout 2m
  vt wait app/shop --for gone")]
pub struct WaitArgs {
    /// Name, KIND/NAME or id
    #[arg(value_name = "NAME|ID", add = ArgValueCompleter::new(complete::rows))]
    name: String,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "settled", value_name = "STATE")]
    state: For,
    /// The longest to wait: 30s, 5m, 1h
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = seconds)]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum For {
    Settled,
    Gone,
}

/// `90`, `90s`, `5m`, `1h` as seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let each = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("write a whole number and s, m or h, for example 5m".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "write a whole number and s, m or h, for example 5m".to_owned())?;
    count.checked_mul(each).filter(|total| *total <= SECONDS_MAX).ok_or_else(|| "at most 24h".to_owned())
}

pub async fn run(session: &Session, args: &WaitArgs) -> Outcome {
    let api = session.api()?;
    let (noun, item) = match Target::new(&api, &session.settings).find(&args.name).await {
        // What is not there is gone, which was to be waited for.
        Err(failure) if args.state == For::Gone && failure.error.code == Code::NotFound => {
            let answer = json!({ "outcome": "gone", "row": null });
            session.out.value(&answer, || format!("gone  {}\n", args.name))?;
            return Ok(0);
        }
        found => found?,
    };
    let answer = until(session, &api, noun, &item, args.state, args.timeout).await?;
    session.out.value(&answer, || {
        format!("{}  {} {}\n", answer["outcome"].as_str().unwrap_or_default(), item.row.kind, item.row.name)
    })?;
    Ok(0)
}

/// Waits for a row. The failure tells why it is not so.
pub async fn until(
    session: &Session,
    api: &Api,
    noun: Noun,
    item: &Item,
    state: For,
    seconds: u64,
) -> Result<Value, Failure> {
    let clock = world::Clock::real();
    let begun = clock.monotonic();
    let path = format!("/v1/{}/{}/wait", noun.plural, item.row.id);
    let generation = item.row.generation.to_string();
    let word = if state == For::Gone { "gone" } else { "settled" };
    let mut told = String::new();
    loop {
        let passed = clock.monotonic().saturating_sub(begun).as_secs();
        let hold = seconds.saturating_sub(passed).min(HOLD_SECONDS).min(WAIT_SECONDS_MAX);
        let timeout = hold.to_string();
        let query = [("generation", generation.as_str()), ("for", word), ("timeout_seconds", timeout.as_str())];
        let answer = match api.get_waiting(&path, &query, hold).await {
            Err(failure) if state == For::Gone && failure.error.code == Code::NotFound => {
                json!({ "outcome": "gone", "row": null })
            }
            answer => answer?,
        };
        let row = answer.get("row").filter(|row| row.is_object()).cloned().map(Item::read).transpose()?;
        match answer["outcome"].as_str().unwrap_or_default() {
            outcome if outcome == word => return Ok(answer),
            "gone" => return Err(Failure::new(Code::NotFound, format!("{} {} is gone", item.row.kind, item.row.name))),
            "failed" => return Err(failed(item, row.as_ref())),
            _ => {}
        }
        let reason = row.as_ref().and_then(|row| row.row.reason.as_ref());
        let now = reason
            .map_or_else(|| "not looked at since the last change".to_owned(), |reason| text::clean(&reason.message));
        if clock.monotonic().saturating_sub(begun).as_secs() >= seconds {
            return Err(Failure::new(
                Code::DeadlineExceeded,
                format!("{} {} is not {word} after {seconds} s", item.row.kind, item.row.name),
            )
            .why(now)
            .hint(format!("vt why {}", item.row.id)));
        }
        if told != now {
            session.out.note(format!("waiting: {now}"));
            told = now;
        }
    }
}

fn failed(item: &Item, row: Option<&Item>) -> Failure {
    let failure = Failure::new(Code::Failed, format!("{} {} failed", item.row.kind, item.row.name));
    match row.and_then(|row| row.row.reason.as_ref()) {
        Some(reason) => {
            let mut failure = failure.why(text::clean(&reason.message)).hint(text::clean(&reason.remedy));
            failure.error.reason = Some(reason.code.clone());
            failure
        }
        None => failure.hint(format!("vt why {}", item.row.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_units() {
        assert_eq!((seconds("90"), seconds("5m"), seconds("1h")), (Ok(90), Ok(300), Ok(3600)));
        for bad in ["", "m", "5 m", "5d", "25h", "99999999999999999999s", "-1s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
