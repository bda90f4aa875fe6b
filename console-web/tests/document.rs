//! The OpenAPI document is the code's, and the golden file is the document.

use std::path::Path;

/// After a change that is meant: `DUOLOG_GOLDEN=write cargo test -p duolog-console --test document`,
/// and look at the difference.
#[test]
fn the_document_is_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let text = duolog_console::document::text();
    if std::env::var("DUOLOG_GOLDEN").is_ok_and(|how| how == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(text == golden, "the API differs from console-web/openapi.json");
}
