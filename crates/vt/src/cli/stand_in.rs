//! Under etcd's name: a link or a copy of this program that is called `etcd` is `vt store serve`.

use std::ffi::OsString;
use std::path::Path;

const SERVE: [&str; 2] = ["store", "serve"];

/// The command line as `vt` reads it.
pub fn translate(arguments: Vec<OsString>) -> Vec<OsString> {
    let called = arguments.first().and_then(|path| Path::new(path).file_name());
    let mut rest = if called.is_some_and(|name| name == "etcd") {
        let rest = &arguments[1..];
        if rest.iter().any(|word| word == "--version" || word == "-version") {
            // Scripts read the first line.
            println!("etcd Version: {}\nvt Version: {}", chainfire::door::Options::VERSION, env!("CARGO_PKG_VERSION"));
            std::process::exit(0);
        }
        rest.to_vec()
    } else if arguments.iter().skip(1).take(2).eq(SERVE.iter()) {
        arguments[3..].to_vec()
    } else {
        return arguments;
    };
    rest.iter_mut().for_each(double);
    ["vt"].iter().chain(&SERVE).map(OsString::from).chain(rest).collect()
}

/// etcd also takes its flags with one dash.
fn double(word: &mut OsString) {
    let single = word.to_str().is_some_and(|text| {
        let name = text.strip_prefix('-').unwrap_or_default();
        name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase())
    });
    if single {
        *word = ["-", word.to_str().unwrap_or_default()].concat().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_is_a_name_of_serve() {
        let translated = |words: &[&str]| translate(words.iter().map(OsString::from).collect()).join(" ".as_ref());
        assert_eq!(
            translated(&["/usr/bin/etcd", "-name", "a", "--data-dir=x"]),
            "vt store serve --name a --data-dir=x"
        );
        assert_eq!(translated(&["vt", "store", "serve", "-name=a", "-h"]), "vt store serve --name=a -h");
        assert_eq!(translated(&["vt", "status", "-a", "etcd"]), "vt status -a etcd");
    }
}
