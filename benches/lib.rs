//! Benches of Duolog by part, run with `cargo bench -p duolog-benches`: `log` (a record encoded,
//! decoded, its CRC; commits alone and together), `direct` (other ways to write the log to disk),
//! `ship` (shipped over loopback and acknowledged) and `mount` (written and synced through a mount,
//! on two nodes). Beside them stand commands that are run by hand: `peers/run`, which compares with
//! what there is otherwise, `growth`, which shows what it costs as things grow, and `resync`.
//! Nothing here is part of the product or of the tests.
