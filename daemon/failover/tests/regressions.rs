//! The shortest ways in which drafts of the protocol lost writes, each as a test of the machines
//! as they are. Numbers are those of the protocol's list of scenarios.

#[path = "regressions/alone.rs"]
mod alone;
#[path = "regressions/bench.rs"]
mod bench;
#[path = "regressions/forced.rs"]
mod forced;
#[path = "regressions/pair.rs"]
mod pair;
#[path = "regressions/services.rs"]
mod services;
#[path = "regressions/time.rs"]
mod time;
#[path = "regressions/witness.rs"]
mod witness;
