//! The tree of commands, as a whole.

use clap::Command;

use super::tree;

fn each(command: &Command, path: &str, visit: &mut dyn FnMut(&Command, &str)) {
    visit(command, path);
    for child in command.get_subcommands() {
        each(child, &format!("{path} {}", child.get_name()), visit);
    }
}

fn built() -> Command {
    let mut tree = tree();
    tree.build();
    tree
}

#[test]
fn the_tree_is_sound() {
    tree().debug_assert();
}

#[test]
fn every_command_takes_json_and_format() {
    let mut count = 0;
    each(&built(), "vt", &mut |command, path| {
        count += 1;
        for option in ["json", "format", "no_input", "app", "env", "project", "org"] {
            assert!(command.get_arguments().any(|argument| argument.get_id() == option), "{path} lacks --{option}");
        }
    });
    assert!(count > 60, "{count} commands were visited");
}

#[test]
fn every_command_has_three_examples_and_a_sentence() {
    each(&built(), "vt", &mut |command, path| {
        let help = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        let examples = help.lines().filter(|line| line.starts_with("  ")).count();
        assert!(examples == 3, "{path} has {examples} examples");
        assert!(command.get_about().is_some(), "{path} has no sentence");
    });
}
