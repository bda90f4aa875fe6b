//! What operators and computers get wrong: each gives a message with its cause and its remedy, ends
//! the command, and changes nothing: configuration, keys, log and data stand as they did, byte for byte.
//! Some rows need root: they make mounts of their own.
//!
//! Elsewhere, because they need more than one computer with a configuration: bad input for `duolog
//! init` and `duolog join`, wrong codes and unequal versions in `setup/tests`; clocks that are apart
//! in `check/judge/tests`; a virtual IP that another computer has in `tests/e2e/neighbours`; ports
//! that are taken while the node runs in `daemon/tests/actions`.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod rows;
mod site;

use std::fmt::Write as _;

use rows::ROWS;
use site::Site;

/// Every row is gone through, and every one that fails is named.
#[test]
fn bad_input_says_its_cause_and_its_remedy_and_changes_nothing() {
    assert!(ROWS.len() >= 40, "{} rows", ROWS.len());
    let mut wrong = String::new();
    for row in ROWS {
        let site = Site::new();
        let held = (row.spoil)(&site);
        let before = site.tree();
        let (failed, said) = site.command(row.command);
        if !failed {
            writeln!(wrong, "{}: it was taken:\n{said}", row.what).unwrap();
        }
        for part in row.said.iter().filter(|part| !said.contains(**part)) {
            writeln!(wrong, "{}: it does not say \"{part}\":\n{said}", row.what).unwrap();
        }
        let after = site.tree();
        for path in before.keys().chain(after.keys()) {
            if before.get(path) != after.get(path) {
                writeln!(wrong, "{}: {path} was changed", row.what).unwrap();
            }
        }
        drop(held);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Else a row would fail whatever it spoils.
#[test]
fn what_is_not_spoilt_is_taken() {
    let site = Site::new();
    let (failed, said) = site.command(&["adopt"]);
    assert!(!failed, "{said}");
}
