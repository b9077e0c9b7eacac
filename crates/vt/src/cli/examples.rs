//! Three examples before the help of the verbs that every noun shares.

use clap::Command;

use crate::client::nouns::NOUNS;

/// A name of this kind, as it stands in examples.
fn sample(noun: &str) -> &'static str {
    match noun {
        "vm" => "web-1",
        "deploy" => "d3",
        "route" => "shop.example",
        "secret" | "env" => "prod",
        "release" => "v2",
        "app" => "shop",
        "token" => "ci",
        "keyspace" => "config",
        "project" => "team",
        "org" => "acme",
        _ => "n1",
    }
}

fn lines(noun: &str, verb: &str) -> Option<[String; 3]> {
    let name = sample(noun);
    let of = if noun == "org" || noun == "node" { "" } else { " --project team" };
    Some(match verb {
        "list" => {
            [format!("vt {noun} list"), format!("vt {noun} list --json"), format!("vt {noun} list --all --format csv")]
        }
        "show" => [
            format!("vt {noun} show {name}"),
            format!("vt {noun} show {name} --json"),
            format!("vt {noun} show {name} --format yaml"),
        ],
        "create" => [
            format!("vt {noun} create {name}"),
            format!("vt {noun} create {name} --spec @spec.json{of}"),
            format!("vt {noun} create {name} --spec '{{}}' --json"),
        ],
        "set" => [
            format!("vt {noun} set {name} --spec @spec.json"),
            format!("vt {noun} show {name} --json | jq .spec | vt {noun} set {name} --spec -"),
            format!("vt {noun} set {name} --spec @spec.json --if-version 4"),
        ],
        "delete" => [
            format!("vt {noun} delete {name}"),
            format!("vt {noun} delete {name} --yes"),
            format!("vt {noun} delete {name} --yes --wait"),
        ],
        _ => return None,
    })
}

/// Adds examples where a command has none of its own.
pub fn add(tree: Command) -> Command {
    NOUNS.into_iter().fold(tree, |tree, noun| {
        tree.mut_subcommand(noun.name, |command| {
            let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
            verbs.into_iter().fold(command, |command, verb| match lines(noun.name, &verb) {
                Some(examples) => command.mut_subcommand(verb, |verb| {
                    if verb.get_before_help().is_some() {
                        return verb;
                    }
                    verb.before_help(format!("Examples:\n  {}", examples.join("\n  ")))
                }),
                None => command,
            })
        })
    })
}
