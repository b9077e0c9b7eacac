use clap::Args;

use super::session::Session;
use crate::explain;
use crate::failure::{Failure, Outcome};

/// Says what a code means and what to do about it, without a network
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  vt explain VT2304
  vt explain image_pull_failed
  vt explain                all codes")]
pub struct ExplainArgs {
    /// A number such as VT1404, an error code or a reason code
    #[arg(value_name = "CODE")]
    code: Option<String>,
}

pub fn run(session: &Session, args: &ExplainArgs) -> Outcome {
    let Some(code) = &args.code else {
        let items: Vec<_> = explain::all().iter().map(explain::Entry::to_json).collect();
        let columns = [("CODE", "/code"), ("NAME", "/name"), ("EXIT", "/exit"), ("MEANS", "/means")];
        let columns = columns.map(|(title, pointer)| crate::output::Column::new(title, pointer));
        session.out.list(&items, &serde_json::Value::Null, &columns)?;
        return Ok(0);
    };
    let Some(entry) = explain::find(code) else {
        let known = explain::all();
        let words = known.iter().flat_map(|entry| [entry.code.as_str(), entry.name.as_str()]);
        let near = model::manifest::nearest(code, words).map(str::to_owned);
        let failure = Failure::new(model::Code::NotFound, format!("`{code}` is not a code"));
        return Err(failure.hint(
            near.map_or_else(|| "vt explain   lists them".to_owned(), |near| format!("did you mean `{near}`?")),
        ));
    };
    session.out.value(&entry.to_json(), || entry.render())?;
    Ok(0)
}
