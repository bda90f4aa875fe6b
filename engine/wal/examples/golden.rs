//! Writes the files that `tests/golden.rs` compares with, for a new version of the format: those
//! of a released version never change.
#![expect(clippy::unwrap_used, reason = "whoever runs it reads what is wrong")]

#[path = "../tests/golden/things.rs"]
mod things;

fn main() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    for (name, bytes) in [
        ("segment-v1.seg", things::segment(&things::operations())),
        ("segment-v1-verify.seg", things::segment(&things::later())),
        ("segment-v1-mend.seg", things::segment(&things::latest())),
        ("control-v1", things::control_file()),
        ("branch-v1.note", things::branch().encode()),
    ] {
        std::fs::write(format!("{folder}/{name}"), bytes).unwrap();
    }
}
