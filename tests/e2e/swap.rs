//! Swaps under load, there and back: clients lose their connections once and nothing else, and the
//! other node lacks nothing afterwards, counted in bytes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use duolog_tests::hosts::clients::{at_client, connect};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::hosts::{Segment, Who, address};
use duolog_tests::process::{Process, run};
use duolog_tests::random::seed;
use duolog_tests::wait;

const PGBENCH: &str = "/usr/lib/postgresql/15/bin/pgbench";
/// Clients of pgbench.
const CLIENTS: u64 = 8;
/// What pgbench says of clients whose server ended, and of its own end. Anything else is an error
/// that a swap may not cause.
const LOST: [&str; 9] = [
    "terminating connection due to administrator command",
    "server closed the connection unexpectedly",
    "This probably means the server terminated abnormally",
    "before or while processing the request.",
    "aborted in command",
    "Run was aborted; the above results are incomplete",
    "could not receive data from server: Connection reset by peer",
    "could not send data to server: Broken pipe",
    "SSL connection has been closed unexpectedly",
];

/// One run of pgbench, with a log of each transaction that was acknowledged.
struct Bench {
    process: Process,
    log: PathBuf,
    errors: PathBuf,
}

impl Bench {
    fn start(cluster: &Cluster, serving: usize, name: &str) -> Self {
        let at = cluster.outside();
        let (log, errors) = (at.join(name), at.join(format!("{name}.errors")));
        let mut command = cluster.lan.client_command(PGBENCH);
        command.args(["-h", &address(Who::node(serving), Segment::A), "-U", "postgres", "-n"]);
        command.args(["-c", &CLIENTS.to_string(), "-j", "2", "-T", "3600", "--log"]);
        command.arg(format!("--log-prefix={}", log.display())).arg("postgres");
        let process = Process::start("pgbench", command, &errors);
        Self { process, log, errors }
    }

    /// Ends by itself once every client has lost its server; returns how many transactions were
    /// acknowledged.
    fn ended(mut self) -> u64 {
        let ended = wait::within(LIMIT, || self.process.ended());
        assert!(ended.is_some(), "pgbench goes on without a server");
        let said = fs::read_to_string(&self.errors).unwrap();
        let header = |line: &str| !line.starts_with("pgbench: ") && !line.contains("server");
        for line in said.lines() {
            let known = LOST.iter().any(|known| line.contains(known));
            assert!(known || header(line), "a swap is an error to clients: {line}\n{said}");
        }
        assert!(said.contains("Run was aborted"), "{said}");
        // Its server was not killed: it ended in order, and said so.
        assert!(said.contains(LOST[0]), "{said}");
        let own = self.log.file_name().unwrap().to_str().unwrap().to_owned() + ".";
        let logs = fs::read_dir(self.log.parent().unwrap()).unwrap().map(|entry| entry.unwrap());
        let logs = logs.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_str().unwrap();
            name.strip_prefix(&own)
                .is_some_and(|rest| rest.starts_with(|it: char| it.is_ascii_digit()))
        });
        logs.map(|entry| lines(&entry.path())).sum()
    }
}

fn lines(path: &Path) -> u64 {
    use std::io::{BufRead, BufReader};
    BufReader::new(File::open(path).unwrap()).lines().map(|line| u64::from(line.is_ok())).sum()
}

/// What pgbench's transactions left: how many, and that each is there with all its parts.
fn history(cluster: &Cluster, serving: usize) -> u64 {
    at_client(cluster.client(), || {
        let mut client = connect(serving, "postgres").unwrap();
        let query = "SELECT (SELECT count(*) FROM pgbench_history),
                            (SELECT sum(abalance) FROM pgbench_accounts),
                            (SELECT sum(bbalance) FROM pgbench_branches),
                            (SELECT sum(tbalance) FROM pgbench_tellers),
                            (SELECT coalesce(sum(delta), 0)::bigint FROM pgbench_history)";
        let row = client.query_one(query, &[]).unwrap();
        let sums: Vec<i64> = (1..5).map(|at| row.get(at)).collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "pgbench lost or tore something: {sums:?}");
        row.get::<_, i64>(0).try_into().unwrap()
    })
}

#[test]
fn a_swap_under_load_loses_nothing_and_leaves_nothing_to_resynchronise() {
    let cluster = Cluster::start("swap", seed(), &Settings::default());
    let serving = cluster.wait_pair();
    let mut init = cluster.lan.client_command(PGBENCH);
    init.args(["-h", &address(Who::node(serving), Segment::A), "-U", "postgres", "-q", "-i"]);
    init.args(["-s", "1", "postgres"]);
    run(init, LIMIT);
    let mut acknowledged = 0;
    for round in 1..=2 {
        let serving = cluster.wait_pair();
        let bench = Bench::start(&cluster, serving, &format!("pgbench-{round}"));
        let clients = cluster.start_clients(2);
        assert!(clients.wait_for_commit(LIMIT).is_some(), "{}", cluster.states());
        let before = history(&cluster, serving);
        let works = wait::within(LIMIT, || (history(&cluster, serving) > before).then_some(()));
        assert!(works.is_some(), "pgbench does nothing");
        let (good, said) = cluster.nodes[serving - 1].try_command(&["swap", "--yes"]);
        assert!(good, "{said}");
        let there = clients.wait_for_commit_on(3 - serving, LIMIT);
        assert!(there.is_some(), "no commit on the other node:\n{}", cluster.states());
        assert_eq!(cluster.wait_pair(), 3 - serving, "{}", cluster.states());
        let done = bench.ended();
        acknowledged += done;
        let there = history(&cluster, 3 - serving);
        println!("{done} transactions of pgbench, {there} of {acknowledged} there");
        // Of those that were under way when their server ended nobody knows.
        let under_way = round * CLIENTS;
        assert!((acknowledged..=acknowledged + under_way).contains(&there), "{there}");
        clients.stop();
        cluster.check();
        lacked_nothing(&cluster, 3 - serving);
    }
}

/// Through all swaps each byte of the log went over once, in either direction, and no file.
fn lacked_nothing(cluster: &Cluster, serving: usize) {
    let receipts = cluster.receipts();
    let swap = receipts.iter().rfind(|it| it.node == serving && it.event == "promoted").unwrap();
    assert_eq!((&*swap.why, &*swap.outcome), ("swap", "serves"), "{swap:?}");
    let mut last = None;
    // The server itself still writes now and then.
    let quiet = wait::within(LIMIT, || {
        let status = cluster.nodes[serving - 1].status()?;
        let (end, acknowledged) = (status.log.end, status.log.acknowledged);
        let shipped = status.peer.map(|peer| peer.shipped_bytes);
        last = Some((end, acknowledged, shipped));
        (acknowledged == Some(end) && shipped == Some(end)).then_some(())
    });
    assert!(quiet.is_some(), "end, acknowledged, shipped: {last:?}");
    let other = &cluster.nodes[2 - serving];
    let copied = other.find_said(0, |line| line.contains("is resynchronised"));
    assert!(copied.is_none(), "{copied:?}");
    let status = other.status().unwrap();
    assert_eq!((&*status.state, &*status.data_sync), ("SECOND", "uptodate"));
}
