//! The help of every command, whole.

use super::run::Place;
use std::fmt::Write as _;

/// Words below `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    list.filter(|line| !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn visit(place: &Place, path: &mut Vec<String>, out: &mut String) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let ran = place.vt(&arguments);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{path:?}");
    assert!(ran.stdout.starts_with("Examples:\n  "), "{path:?}: the examples come first\n{}", ran.stdout);
    // What every command takes is shown once, with the first.
    let own = if path.is_empty() {
        ran.stdout.as_str()
    } else {
        ran.stdout.split("\nOptions of every command:").next().unwrap()
    };
    let _ = writeln!(out, "=== vt {}\n{}\n", path.join(" "), own.trim_end());
    for command in commands(&ran.stdout) {
        path.push(command);
        visit(place, path, out);
        path.pop();
    }
}

#[test]
fn the_help_of_every_command() {
    let mut out = String::new();
    visit(&Place::new(), &mut Vec::new(), &mut out);
    insta::assert_snapshot!(out);
}

#[test]
fn a_mistyped_word_is_answered_with_the_right_one() {
    let place = Place::new();
    let mut out = String::new();
    for line in [
        "deplyo",
        "vm lst",
        "deploy --imgae x",
        "status --format jsn",
        "scale",
        "secrets",
        "route create",
        "logs --tail 20000",
        "wait x --timeout 5days",
        "exec ls",
        "completion csh",
        "status --json --format csv",
        "--no-such",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let _ = writeln!(out, "$ vt {line}\n{}", place.vt(&arguments).whole());
    }
    insta::assert_snapshot!(out);
}

#[test]
fn a_refused_command_line_is_json_where_json_was_asked_for() {
    let ran = Place::new().vt(&["deplyo", "--json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["code"], "invalid_argument");
    assert_eq!(error["hint"], "did you mean `deploy`?");
}
