//! A base copy taken in service, and the log replayed over it to random moments.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::spawn;
use std::time::Duration;

use duolog_tests::journal::{Journal, Moment, now_us};
use duolog_tests::node::duolog;
use duolog_tests::pair::Pair;
use duolog_tests::postgresql::{Server, initdb, user};
use duolog_tests::process::{run, try_run};
use duolog_tests::random::{Random, seed};

use crate::{COMMITS_LIMIT, data};

const MARKS: usize = 20;
/// How long one replay may take, or one copy.
const REPLAY_LIMIT: Duration = Duration::from_mins(2);
/// The log's clock is marked this often, in microseconds: what happened within one mark has the
/// same time.
const MARK_US: u64 = 100_000;

/// A place in the log, as it is said on the command line, and the moment that it stands for.
struct Mark {
    until: String,
    moment: Moment,
}

/// By position: what was acknowledged before the log was looked at lies below its end, and what
/// began after it lies above.
fn position(pair: &mut Pair) -> Mark {
    let not_before_us = now_us();
    let status = pair.prim_status().expect("the node answers");
    let not_after_us = now_us();
    let until = format!("{:X}/{:08X}", status.log.end >> 32, status.log.end & 0xffff_ffff);
    Mark { until, moment: Moment { not_before_us, not_after_us } }
}

/// By time, as exact as the log's marks are.
fn time() -> Mark {
    let now = now_us();
    Mark {
        until: format!("@{}", now * 1000),
        moment: Moment { not_before_us: now, not_after_us: now + MARK_US },
    }
}

/// Copies a directory with all that its files have.
fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    run(command, REPLAY_LIMIT);
}

fn replay(base: &Path, log: &Path, until: &str) {
    let mut command = duolog(&["log", "replay", "--until", until]);
    command.arg(base).arg("--segments").arg(log);
    run(command, REPLAY_LIMIT);
}

#[test]
fn replay_to_a_mark_has_what_was_acknowledged_before_and_nothing_that_began_after() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut pair = Pair::new("recovery", &[data("postgresql", Some(user()))]);
    if pair.is_plain() {
        return;
    }
    pair.add_to_log_table("recovery_window_bytes = 2147483648\n");
    pair.start_empty();
    let (site, outside) = (pair.site("data"), pair.outside());
    let journal = Journal::create(&outside.join("journal"), seed);
    initdb(&site);
    let server = Server::start(&site, &outside);
    server.create_promise(None);
    server.pgbench("postgres", &["-i", "-s", "1", "--quiet"]);

    let writers = server.start_writers(journal.path(), 4);
    let mut load = server.client_program("pgbench");
    load.args(["-c", "4", "-T", "300", "-n", "postgres"]);
    let load = spawn(move || try_run(load, Duration::from_mins(5)));
    journal.wait_for(50, COMMITS_LIMIT, || writers.assert_run());
    let base = pair.base();
    let mut marks = Vec::new();
    while marks.len() < MARKS {
        journal.wait_for(random.between(1, 60), COMMITS_LIMIT, || writers.assert_run());
        marks.push(if random.once_in(2) { time() } else { position(&mut pair) });
    }
    // The last mark has something behind it.
    journal.wait_for(100, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    server.kill();
    load.join().unwrap();
    pair.stop();

    let log = pair.node(1).unwrap().state_dir();
    // A moment ends with the log's next mark, so it may be behind a position that is later.
    let base_of_moments = outside.join("base-of-moments");
    copy(&base, &base_of_moments);
    let thrown_away = outside.join("copy");
    for (number, mark) in marks.iter().enumerate() {
        let base = if mark.until.starts_with('@') { &base_of_moments } else { &base };
        replay(base, &log, &mark.until);
        // The server's own recovery must not touch what is replayed further.
        copy(&base.join("data-0"), &thrown_away);
        let server = Server::start_on_copy(&thrown_away, &outside);
        let survived = journal.promises().check_at(&server.rows(), mark.moment);
        println!("until {}: {survived:?}", mark.until);
        server.check_pgbench("postgres");
        if number % 5 == 0 {
            server.check_tables();
        }
        server.kill();
        fs::remove_dir_all(&thrown_away).unwrap();
    }
}
