//! What a person runs is what CI runs.
//!
//! ```text
//! cargo xtask demo      installs what it needs, starts the cloud in a folder of its own, shows it, leaves it running
//! cargo xtask test      everything that proves it, from a clean clone; ends with plain counts
//! cargo xtask floors    the arrows between crates
//! cargo xtask bench     named figures, side by side with what they are compared with
//! cargo xtask sample    the sample image, for tests
//! cargo xtask openapi   the API's document, into api/
//! ```

mod bench;
mod demo;
mod floors;
mod openapi;
mod packages;
mod run;
mod sample;
mod test;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask demo | test [--quick] | floors [--write] | bench path [--json] | sample DIR | openapi [--write]";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo", rest @ ..] => demo::demo(rest),
        ["test", rest @ ..] => test::test(rest),
        ["floors"] => floors::floors(false),
        ["floors", "--write"] => floors::floors(true),
        ["bench", "path", rest @ ..] => bench::path(rest.contains(&"--json")),
        ["sample", folder] => sample::images(folder.as_ref()).map(drop),
        ["openapi"] => openapi::openapi(false),
        ["openapi", "--write"] => openapi::openapi(true),
        _ => bail!("{USAGE}"),
    }
}
