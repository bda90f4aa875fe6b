//! What is where, with what each route says of itself in the `OpenAPI` document. Who may ask is the
//! gate's to know.

pub(crate) mod actions;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod pair;
pub(crate) mod session;
pub(crate) mod users;

use crate::api::problem::{Problem, Why};

/// The number of a node in a path.
pub(crate) fn node(text: &str) -> Result<u8, Problem> {
    match text {
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err(Problem::new(Why::NotFound, "a node is 1 or 2")),
    }
}
