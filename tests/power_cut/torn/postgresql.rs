//! `PostgreSQL` with page checksums and `full_page_writes = off`.

use std::fs::File;
use std::io::Write;
use std::thread::spawn;
use std::time::Duration;

use duolog_tests::postgresql::{Server, check_pages, initdb, user};
use duolog_tests::process::try_run;
use duolog_tests::wait;

use super::{Bed, ROUNDS, complaint, said};

/// A cache that holds next to nothing: pages are written all the time, and synced at checkpoints.
const SMALL: [&str; 4] =
    ["shared_buffers=1MB", "max_wal_size=32MB", "bgwriter_delay=10ms", "full_page_writes=off"];
const BUSY_LIMIT: Duration = Duration::from_mins(3);
/// What the server logs before the power is cut, at the least: some hundred pages were evicted then.
const WAL_BYTES: u64 = 256 << 10;

fn start(bed: &Bed, settings: &[&str]) -> Server {
    Server::start_with(&bed.data(), &bed.outside(), settings)
}

fn set_up(bed: &mut Bed, settings: &[&str]) {
    bed.serve();
    initdb(&bed.data());
    let server = start(bed, settings);
    server.create_promise(None);
    server.pgbench("postgres", &["-i", "-s", "2", "--quiet"]);
    server.execute("postgres", &["CHECKPOINT"]);
    server.stop();
    if let Some(node) = &mut bed.node {
        node.stop();
    }
    bed.disk.settle();
}

/// Work, a power cut in the middle of it, and what is left: every promise is kept and every page is
/// whole.
fn round(bed: &mut Bed, settings: &[&str]) {
    bed.serve();
    let server = start(bed, settings);
    let writers = server.start_writers(bed.journal.path(), 3);
    let mut load = server.client_program("pgbench");
    load.args(["-c", "4", "-T", "60", "-n", "postgres"]);
    let load = spawn(move || try_run(load, BUSY_LIMIT));
    let logged = || server.number("postgres", "SELECT (pg_current_wal_lsn() - '0/0')::bigint");
    let enough = logged() + i64::try_from(bed.random.between(1, 6) * WAL_BYTES).unwrap();
    let busy = wait::within(BUSY_LIMIT, || (logged() > enough).then_some(()));
    assert!(busy.is_some(), "the server does nearly nothing");
    bed.journal.wait_for(bed.random.between(20, 100), BUSY_LIMIT, || writers.assert_run());
    bed.cut(|| server.kill());
    writers.fail();
    assert!(!load.join().unwrap().0.success(), "pgbench goes on without a server");

    bed.serve();
    let server = start(bed, settings);
    let rows = server.rows();
    let survived = bed.journal.promises().check(&rows);
    println!("{survived:?}");
    assert!(survived.acknowledged > 0);
    bed.journal.seen(&rows);
    server.check_pgbench("postgres");
    server.check_tables();
    server.stop();
    check_pages(&bed.data());
    if let Some(node) = &mut bed.node {
        node.stop();
    }
}

/// The control.
#[test]
fn postgresql_without_full_page_writes_has_torn_pages_on_a_plain_disk() {
    let mut bed = Bed::new("torn-postgresql-plain", None, user());
    set_up(&mut bed, &SMALL);
    let complaint = complaint(|| round(&mut bed, &SMALL));
    let complaint = complaint.expect("not one page was torn in so many power cuts");
    println!("{complaint}");
    let all = complaint + &said(&bed.outside().join("postgresql.said"));
    let torn =
        ["page verification failed", "invalid page in block", "checksum verification failed"];
    assert!(torn.iter().any(|text| all.contains(text)), "it complains of something else: {all}");
}

/// With them, on the same disk: what tears pages is no fault of the harness.
#[test]
fn postgresql_with_full_page_writes_survives_on_a_plain_disk() {
    let mut bed = Bed::new("whole-postgresql-plain", None, user());
    let settings = [&SMALL[..3], &["full_page_writes=on"]].concat();
    set_up(&mut bed, &settings);
    for _ in 0..ROUNDS {
        round(&mut bed, &settings);
    }
}

#[test]
fn postgresql_without_full_page_writes_has_no_torn_page_on_duolog() {
    let mut bed = Bed::new("torn-postgresql", Some("postgresql"), user());
    set_up(&mut bed, &SMALL);
    for _ in 0..ROUNDS {
        round(&mut bed, &SMALL);
    }
    // Outside of Duolog that is not so, and who leaves is told.
    bed.serve();
    let mut conf = File::options().append(true).open(bed.data().join("postgresql.conf")).unwrap();
    conf.write_all(b"full_page_writes = off\n").unwrap();
    drop(conf);
    bed.node.as_mut().unwrap().stop();
    let said = bed.node.as_ref().unwrap().command(&["leave"]);
    assert!(said.contains("WARNING: full_page_writes = off"), "{said}");
    check_pages(&bed.data());
}
