//! The table is what the documentation says, and holds together.

use std::path::Path;

use duolog_failover::table::{TABLE, Why, markdown};

#[test]
fn the_documentation_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    if std::env::var_os("DUOLOG_WRITE_STATES").is_some() {
        std::fs::write(&path, markdown()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, markdown(), "docs/states.md is not what the table says");
}

#[test]
fn every_reason_is_reached_by_one_row_from_another_state_or_at_the_start() {
    for why in Why::ALL {
        let rows: Vec<_> = TABLE.iter().filter(|row| row.to == *why).collect();
        let expected = usize::from(*why != Why::NotStarted);
        assert_eq!(rows.len(), expected, "{why:?}");
        for row in rows {
            assert!(!row.from.is_empty() && !row.from.contains(&why.state()), "{row:?}");
        }
    }
}
