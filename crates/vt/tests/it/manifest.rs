//! Manifests that are right, and that are not.

use super::run::Place;
use std::fmt::Write as _;

const RIGHT: &str = r#"# the shop
schema_version = "v1"
app = { name = "shop" }
[processes.web]
resources = { memory = "256Mi" }
ports = [{ name = "http", internal = 8080 }]
health = { type = "http", port = "http", path = "/healthz" }
"#;

#[test]
fn checked_and_formatted() {
    let place = Place::new();
    place.write("vt.toml", RIGHT);
    let mut out = String::new();
    for line in
        ["manifest check", "manifest check --json", "manifest fmt", "manifest fmt --check", "manifest fmt --write"]
    {
        let arguments: Vec<&str> = line.split(' ').collect();
        let _ = writeln!(out, "$ vt {line}\n{}", place.vt(&arguments).whole());
    }
    insta::assert_snapshot!(out);
    assert_eq!(place.read("vt.toml"), RIGHT, "comments are not lost by accident");
    assert_eq!(place.vt(&["manifest", "fmt", "--write", "--force"]).code, 0);
    assert_eq!(place.vt(&["manifest", "fmt", "--check"]).code, 0);
    assert_eq!(place.read("vt.toml"), place.vt(&["manifest", "fmt"]).stdout);
}

#[test]
fn refused_with_line_and_right_form() {
    let place = Place::new();
    let mut out = String::new();
    for (from, to) in [
        ("memory = \"256Mi\"", "memory = \"256MB\""),
        ("memory = \"256Mi\"", "cpu = 1.0"),
        ("resources =", "resorces ="),
        ("internal = 8080", "internal = 70000"),
        ("name = \"shop\"", "name = \"The Shop\""),
        ("schema_version = \"v1\"", "schema_version = v1"),
    ] {
        place.write("vt.toml", &RIGHT.replace(from, to));
        for arguments in [vec!["manifest", "check"], vec!["deploy"]] {
            let ran = place.vt(&arguments);
            assert_eq!(ran.code, 2, "a deploy refuses what a check refuses\n{}", ran.whole());
            if arguments[0] == "manifest" {
                let _ = writeln!(out, "$ sed 's/{from}/{to}/'\n{}", ran.whole());
            }
        }
    }
    insta::assert_snapshot!(out);
}

#[test]
fn the_schema_is_json() {
    let schema = Place::new().vt(&["manifest", "schema", "--json"]).json();
    assert_eq!(schema["properties"]["schema_version"]["type"], "string");
    assert_eq!(schema["additionalProperties"], false);
}
