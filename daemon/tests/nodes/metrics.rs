//! What both nodes of a pair tell over HTTPS while it commits, and to whom.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, version::TLS13,
};

use super::*;

/// A node that tells what it measures.
struct Told<'a> {
    place: &'a Place,
    https: SocketAddr,
    token: String,
}

impl<'a> Told<'a> {
    /// Adds `[web]` to the node's configuration, and makes the token.
    fn new(place: &'a Place) -> Self {
        let https = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = fs::read_to_string(place.config()).unwrap();
        fs::write(place.config(), config + &format!("[web]\nhttps = \"{https}\"\n")).unwrap();
        let token = token(place, &[]);
        assert_eq!(self::token(place, &[]), token, "it is made once");
        let file = place.directory.path().join("metrics.token");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(file).unwrap().trim(), token);
        Self { place, https, token }
    }

    fn ask(&self, request: &str) -> String {
        ask(self.https, &self.place.directory.path().join("node.crt"), "node", request)
    }

    fn request(authorization: &str) -> String {
        format!("GET /metrics HTTP/1.1\r\nHost: node\r\n{authorization}Connection: close\r\n\r\n")
    }

    /// Every sample by its name and labels.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.ask(&Self::request(&format!("Authorization: Bearer {}\r\n", self.token)));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let parts = samples.map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}")));
        parts.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }
}

/// Asks the node called `name` as whoever trusts that certificate; waits until the port is open.
pub(super) fn ask(https: SocketAddr, trusted: &Path, name: &str, request: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let deadline = Instant::now() + BOUND;
    let tcp = loop {
        match TcpStream::connect(https) {
            Ok(tcp) => break tcp,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    tcp.set_read_timeout(Some(BOUND)).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // The end may come without a word of farewell.
    stream.read_to_string(&mut answer).ok();
    answer
}

/// What `duolog metrics token` prints.
fn token(place: &Place, options: &[&str]) -> String {
    let mut make = duolog();
    let made = make.args(["metrics", "token", "--config"]).arg(place.config()).args(options);
    said(&made.output().unwrap()).trim().to_owned()
}

fn commit(place: &Place, count: u32) {
    let mut file = fs::File::create(place.data().join("rows")).unwrap();
    for row in 0..count {
        writeln!(file, "row {row}").unwrap();
        fsync(&file).unwrap();
    }
}

/// That a histogram holds what it says.
fn check(metrics: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let labelled = |suffix: &str, more: &str| {
        let all = [labels, more].map(str::to_owned).into_iter().filter(|text| !text.is_empty());
        let all = all.collect::<Vec<_>>().join(",");
        let all = if all.is_empty() { all } else { format!("{{{all}}}") };
        metrics[&format!("{name}_{suffix}{all}")]
    };
    let (count, sum) = (labelled("count", ""), labelled("sum", ""));
    assert!((count - labelled("bucket", "le=\"+Inf\"")).abs() < 0.5, "{name}");
    assert!(labelled("bucket", "le=\"0.001\"") <= labelled("bucket", "le=\"1\""), "{name}");
    // These are over before the request where whoever wrote has shipped, which is the rule.
    let may_be_nothing = ["hand_over", "compress"].iter().any(|stage| labels.contains(stage));
    let something = may_be_nothing || count == 0.0 || sum > 0.0;
    assert!(something && sum >= 0.0 && sum <= count * 60.0, "{name}: {sum} s for {count}");
    count
}

#[test]
fn both_nodes_tell_what_they_measure_while_the_pair_commits_and_strangers_nothing() {
    const COMMITS: u32 = 40;
    let [one, two] = Place::pair();
    let (first, second) = (Told::new(&one), Told::new(&two));
    let _second = two.run("READY=1");
    let _first = one.run("READY=1");

    commit(&one, 1);
    let before = first.metrics();
    commit(&one, COMMITS);
    let after = first.metrics();
    assert!(after["duolog_state{state=\"PRIM\"}"] > 0.5);
    assert!(after["duolog_data_sync{status=\"uptodate\"}"] > 0.5);
    let name = "duolog_commit_duration_seconds";
    let more = check(&after, name, "") - check(&before, name, "");
    assert!(more >= f64::from(COMMITS), "{more} commits were counted");
    let total = after["duolog_commit_duration_seconds_sum"];
    let parts = ["hand_over", "compress", "wire", "remote_disk", "acknowledgement"];
    let others = ["local_write", "queue", "local_disk", "peer", "remote_write", "remote_sync"];
    for stage in parts.into_iter().chain(others).chain(["wake_up", "fuse"]) {
        let labels = format!("stage=\"{stage}\"");
        let count = check(&after, "duolog_commit_stage_duration_seconds", &labels);
        assert!(count > 0.0, "{stage} was never measured");
        if !["local_write", "local_disk", "wake_up"].contains(&stage) {
            let sum = after[&format!("duolog_commit_stage_duration_seconds_sum{{{labels}}}")];
            assert!(sum <= total, "{stage} took {sum} s of {total} s");
        }
    }
    let stage = |name: &str, part: &str| {
        after[&format!("duolog_commit_stage_duration_seconds_{part}{{stage=\"{name}\"}}")]
    };
    let sum = |parts: &[&str]| parts.iter().map(|part| stage(part, "sum")).sum::<f64>();
    let (peer, disk) = (sum(&["peer"]), sum(&["remote_disk"]));
    assert!((peer - sum(&parts)).abs() < 1e-6, "{peer} s is made of {} s", sum(&parts));
    let disk_parts = sum(&["remote_write", "remote_sync"]);
    assert!((disk - disk_parts).abs() < 1e-6, "{disk} s is made of {disk_parts} s");
    assert!((stage("peer", "count") - stage("wire", "count")).abs() < 0.5, "it said each time");
    for counter in ["duolog_shipped_bytes_total", "duolog_wire_bytes_total"] {
        assert!(after[counter] > before[counter], "{counter} did not grow");
    }
    let at =
        |position: &str| after[&format!("duolog_log_position_bytes{{position=\"{position}\"}}")];
    assert!(at("committed") <= at("durable") && at("durable") <= at("end"));
    assert!(after["duolog_certificate_left_days{certificate=\"node\"}"] > 1.0);

    let there = second.metrics();
    assert!(there["duolog_state{state=\"SECOND\"}"] > 0.5);
    assert!(check(&there, "duolog_log_sync_duration_seconds", "") > 0.0);
    assert!(check(&there, name, "") < 0.5, "a SECOND answers no commit");

    let other = format!("Authorization: Bearer {}\r\n", second.token);
    for wrong in ["", "Authorization: Bearer 00\r\n", "Authorization: Basic eDp5\r\n", &other] {
        let begun = Instant::now();
        let answer = first.ask(&Told::request(wrong));
        assert!(answer.starts_with("HTTP/1.1 401 "), "{wrong:?}: {answer}");
        assert!(!answer.contains("duolog_"), "{wrong:?}: {answer}");
        assert!(begun.elapsed() >= Duration::from_millis(500), "{wrong:?} was answered at once");
    }
    let huge = format!("X-Junk: {}\r\n", "x".repeat(64 << 10));
    let answer = first.ask(&Told::request(&huge));
    assert!(!answer.starts_with("HTTP/1.1 200") && !answer.contains("duolog_"), "{answer}");
    let again = first.metrics();
    assert!(again["duolog_commit_duration_seconds_count"] >= f64::from(COMMITS));

    let renewed =
        Told { token: token(&one, &["--replace"]), place: first.place, https: first.https };
    assert!(renewed.metrics().len() > 100, "a new token counts at once");
    let old = format!("Authorization: Bearer {}\r\n", first.token);
    assert!(renewed.ask(&Told::request(&old)).starts_with("HTTP/1.1 401 "));
}
