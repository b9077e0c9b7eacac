//! Completion of names that live in the cloud. Asks the API, briefly; says nothing when it does not answer.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;

use crate::client::nouns::{self, NOUNS, Noun};
use crate::client::{Api, Target};
use crate::config::{Flags, Settings};

/// The variable by which the shell asks for candidates.
pub const VARIABLE: &str = "VT_COMPLETE";
/// A shell waits for this long at most.
const ANSWER_DEADLINE: Duration = Duration::from_millis(800);
/// More than this help nobody.
const CANDIDATES_MAX: usize = 200;

/// Answers the shell and ends the program, when it was the shell that called.
pub fn answer() {
    CompleteEnv::with_factory(super::tree).var(VARIABLE).complete();
}

pub fn apps(word: &OsStr) -> Vec<CompletionCandidate> {
    names(word, nouns::find("app").into_iter().collect())
}

pub fn envs(word: &OsStr) -> Vec<CompletionCandidate> {
    names(word, nouns::find("env").into_iter().collect())
}

pub fn vms(word: &OsStr) -> Vec<CompletionCandidate> {
    names(word, nouns::find("vm").into_iter().collect())
}

/// Rows of every kind that a name may mean.
pub fn rows(word: &OsStr) -> Vec<CompletionCandidate> {
    names(word, NOUNS.to_vec())
}

fn names(word: &OsStr, nouns: Vec<Noun>) -> Vec<CompletionCandidate> {
    let begin = word.to_string_lossy().into_owned();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let settings = Settings::read(&Flags::default(), &|name| std::env::var(name).ok());
    let ask = async {
        let mut found = Vec::new();
        let Ok(api) = Api::open(&settings) else { return found };
        let target = Target::new(&api, &settings);
        for noun in nouns {
            let Ok(scope) = target.list_scope(noun).await else { continue };
            let scope = scope.to_string();
            let Ok(page) = api.page(noun, &[("scope", scope.as_str()), ("limit", "200")]).await else { continue };
            found.extend(page.items.into_iter().map(|item| (item.row.name, noun.name)));
        }
        found
    };
    let found = runtime.block_on(async { tokio::time::timeout(ANSWER_DEADLINE, ask).await }).unwrap_or_default();
    found
        .into_iter()
        .filter(|(name, _)| name.starts_with(&begin))
        .take(CANDIDATES_MAX)
        .map(|(name, kind)| CompletionCandidate::new(name).help(Some(kind.into())))
        .collect()
}
