//! A store of one member.

use chainfire::member::{Member, Options, Place};
use store::conformance::Subject;

async fn subject() -> Subject {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { place: Place::Folder(dir.path().to_path_buf()), ..Options::default() };
    let member = Member::open(options).await.expect("a new member");
    Subject::holding(member, dir)
}

store::conformance::suite!(subject);
