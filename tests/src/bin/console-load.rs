//! What open consoles cost the primary: `benches/console`, which says what is measured.
//!
//! The pair is the one that `duolog demo --keep` leaves running, both nodes on this computer, with
//! `PostgreSQL` in the directory of the node that serves. Each stream is a browser's: HTTPS, a
//! session, `/api/v1/events?samples=true`, every event read to its end by a thread of this process.
//! The last line is JSON; the exit code is not zero when a bound is missed.

#![expect(clippy::unwrap_used, reason = "a measurement that fails says why by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use duolog_tests::node::binary;
use duolog_tests::postgresql::Server;
use duolog_tests::process::run;
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(10);
/// How long a stream may take to open.
const OPEN_LIMIT: Duration = Duration::from_mins(1);
/// Threads of a node that are there for its console alone, as the kernel names them.
const CONSOLE_THREADS: [&str; 4] = ["duolog-web", "duolog-web-work", "duolog-stands", "duolog-all"];

/// Bounds of the promise.
const CPU_MAX: f64 = 0.05;
const TPS_RATIO_MIN: f64 = 0.95;

struct Options {
    streams: usize,
    seconds: u64,
    rounds: usize,
    clients: u32,
}

fn options() -> Options {
    let mut options = Options { streams: 200, seconds: 8, rounds: 5, clients: 4 };
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--streams" => options.streams = value.parse().unwrap(),
            [name, value] if name == "--seconds" => options.seconds = value.parse().unwrap(),
            [name, value] if name == "--rounds" => options.rounds = value.parse().unwrap(),
            [name, value] if name == "--clients" => options.clients = value.parse().unwrap(),
            _ => panic!("benches/console: see its first lines for its options"),
        }
    }
    options
}

fn main() -> ExitCode {
    let options = options();
    let scratch = Scratch::new("console");
    let pair = Pair::start(scratch.path());
    let data = pair.home().join("node1/data");
    let settings = ["shared_buffers=64MB", "max_wal_size=4GB", "checkpoint_timeout=1h"];
    let server = Server::start_with(&data, scratch.path(), &settings);
    let mut fill = server.client_program("pgbench");
    fill.args(["-i", "-q", "-s", "5", "postgres"]);
    run(fill, LIMIT);
    transactions(&server, &options, 3);

    let visitor = Visitor::log_in(&pair);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let (mut events, mut bytes) = (0, 0);
    for round in 1..=options.rounds {
        let a = measured(&pair, &server, &options);
        let streams = Streams::open(&visitor, options.streams);
        let b = measured(&pair, &server, &options);
        let told = streams.close();
        println!(
            "round {round}: TPS {:.0} without, {:.0} with {} streams; console {:.4} and {:.4} of a \
             core, the whole daemon {:.3} and {:.3}; {} events, {} bytes read",
            a.tps, b.tps, options.streams, a.console, b.console, a.daemon, b.daemon, told.0, told.1
        );
        (events, bytes) = (events + told.0, bytes + told.1);
        without.push(a);
        with.push(b);
    }
    server.stop();
    pair.end();

    let of = |all: &[Measured], what: fn(&Measured) -> f64| median(all.iter().map(what).collect());
    let ratio = of(&with, |it| it.tps) / of(&without, |it| it.tps);
    let cpu = of(&with, |it| it.console) - of(&without, |it| it.console);
    let mut missed = Vec::new();
    if cpu >= CPU_MAX {
        missed.push(format!("the streams cost {cpu:.3} of a core, which is to be below {CPU_MAX}"));
    }
    if ratio < TPS_RATIO_MIN {
        missed.push(format!("{ratio:.3} of the TPS, which is to be {TPS_RATIO_MIN} at least"));
    }
    for line in &missed {
        println!("MISSED {line}");
    }
    let result = json!({
        "streams": options.streams,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "clients": options.clients,
        "tps_without": of(&without, |it| it.tps),
        "tps_with": of(&with, |it| it.tps),
        "tps_ratio": ratio,
        "cpu_of_streams": cpu,
        "cpu_of_console_without": of(&without, |it| it.console),
        "cpu_of_console_with": of(&with, |it| it.console),
        "cpu_of_daemon_without": of(&without, |it| it.daemon),
        "cpu_of_daemon_with": of(&with, |it| it.daemon),
        "events": events,
        "event_bytes": bytes,
        "missed": missed,
    });
    println!("{result}");
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The pair, and how its consoles are reached.
struct Pair {
    demo: Child,
    console: Value,
}

impl Pair {
    fn start(scratch: &Path) -> Self {
        // PostgreSQL's user has to pass.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(scratch, fs::Permissions::from_mode(0o711)).unwrap();
        let mut demo = Command::new(binary())
            .args(["demo", "--engine=postgresql", "--json", "--keep", "--seconds=1", "--dir"])
            .arg(scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(demo.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let outcome: Value = serde_json::from_str(&line).expect("the demo failed");
        assert_eq!(outcome["lost"], 0);
        Self { demo, console: outcome["console"].clone() }
    }

    fn text(&self, key: &str) -> &str {
        self.console[key].as_str().unwrap()
    }

    /// The demo's directory.
    fn home(&self) -> PathBuf {
        Path::new(self.text("authority")).ancestors().nth(2).unwrap().to_owned()
    }

    /// Processor time so far of the node that serves: of its console's threads, and of all of it, its
    /// guardian too. Threads that have ended are left out.
    fn spent(&self) -> [Duration; 2] {
        let config = self.home().join("node1.toml");
        let config = config.to_str().unwrap().as_bytes();
        let mut spent = [Duration::ZERO; 2];
        for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            if !line.split(|byte| *byte == 0).any(|word| word == config) {
                continue;
            }
            for thread in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
                let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
                let time = time_of(&thread.path());
                spent[1] += time;
                if CONSOLE_THREADS.contains(&name.trim()) {
                    spent[0] += time;
                }
            }
        }
        spent
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.demo), Signal::TERM).unwrap();
        assert!(self.demo.wait().unwrap().success(), "the demo was not ended in order");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if self.demo.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill_process(Pid::from_child(&self.demo), Signal::TERM).ok();
            self.demo.wait().ok();
        }
    }
}

/// Processor time of a thread so far; nothing once it has ended.
fn time_of(thread: &Path) -> Duration {
    let told = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(told.split_whitespace().next().map_or(0, |it| it.parse().unwrap()))
}

/// What was measured in one turn.
struct Measured {
    tps: f64,
    /// Of one core.
    console: f64,
    daemon: f64,
}

fn measured(pair: &Pair, server: &Server, options: &Options) -> Measured {
    let (before, begun) = (pair.spent(), Instant::now());
    let tps = transactions(server, options, options.seconds);
    let (after, took) = (pair.spent(), begun.elapsed().as_secs_f64());
    let [console, daemon] =
        [0, 1].map(|of| after[of].saturating_sub(before[of]).as_secs_f64() / took);
    Measured { tps, console, daemon }
}

fn transactions(server: &Server, options: &Options, seconds: u64) -> f64 {
    let mut command = server.client_program("pgbench");
    let clients = options.clients.to_string();
    command.args(["-n", "-c", &clients, "-j", "2", "-T", &seconds.to_string(), "postgres"]);
    let said = run(command, LIMIT);
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let half = all.len() / 2;
    if all.len() % 2 == 1 { all[half] } else { f64::midpoint(all[half - 1], all[half]) }
}

/// A browser that logged in at the primary.
#[derive(Clone)]
struct Visitor {
    at: SocketAddr,
    tls: Arc<ClientConfig>,
    cookie: String,
}

impl Visitor {
    fn log_in(pair: &Pair) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pair.text("authority")).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let at = pair.text("node1").strip_prefix("https://").unwrap().parse().unwrap();
        let mut visitor = Self { at, tls: Arc::new(tls), cookie: String::new() };
        let body = json!({ "name": pair.text("user"), "password": pair.text("password") });
        let body = body.to_string();
        let mut stream = visitor.connect();
        write!(
            stream,
            "POST /api/v1/login HTTP/1.1\r\nHost: duolog\r\nConnection: close\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        // The end may come without a word of farewell.
        stream.read_to_string(&mut answer).ok();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        cookie.split(';').next().unwrap().clone_into(&mut visitor.cookie);
        visitor
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(self.tls.clone(), name).unwrap();
        StreamOwned::new(tls, TcpStream::connect(self.at).unwrap())
    }
}

/// Open streams, each read by a thread.
struct Streams {
    over: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    readers: Vec<JoinHandle<u64>>,
    sockets: Vec<TcpStream>,
}

impl Streams {
    /// Opens all of them, and waits until each was told how the pair stands.
    fn open(visitor: &Visitor, count: usize) -> Self {
        let (over, bytes) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let told = Arc::<AtomicU64>::default();
        let (mut readers, mut sockets) = (Vec::new(), Vec::new());
        for number in 1..=count {
            let mut stream = visitor.connect();
            write!(
                stream,
                "GET /api/v1/events?samples=true HTTP/1.1\r\nHost: duolog\r\nCookie: {}\r\n\r\n",
                visitor.cookie
            )
            .unwrap();
            sockets.push(stream.sock.try_clone().unwrap());
            let (over, bytes, heard) = (over.clone(), bytes.clone(), told.clone());
            readers.push(spawn(move || read(stream, &over, &bytes, &heard)));
            // Only so many of one address may be strangers at a time.
            wait::until("a stream is open", OPEN_LIMIT, || {
                (told.load(Ordering::Relaxed) == number as u64).then_some(())
            });
        }
        bytes.store(0, Ordering::Relaxed);
        Self { over, bytes, readers, sockets }
    }

    /// Closes them. Events and bytes that were read of all of them.
    fn close(self) -> (u64, u64) {
        self.over.store(true, Ordering::SeqCst);
        let bytes = self.bytes.load(Ordering::Relaxed);
        for socket in &self.sockets {
            socket.shutdown(std::net::Shutdown::Both).ok();
        }
        let events: Vec<_> = self.readers.into_iter().map(|it| it.join().unwrap()).collect();
        let least = events.iter().min().copied().unwrap_or(0);
        assert!(least > 2, "a stream told {least} events, so it was none");
        (events.iter().sum(), bytes)
    }
}

/// Reads one stream until it is closed here. The number of events.
fn read(
    stream: StreamOwned<ClientConnection, TcpStream>,
    over: &AtomicBool,
    bytes: &AtomicU64,
    told: &AtomicU64,
) -> u64 {
    let mut lines = BufReader::with_capacity(32 << 10, stream);
    let (mut line, mut events) = (Vec::new(), 0);
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => {
                bytes.fetch_add(read as u64, Ordering::Relaxed);
                if line.starts_with(b"event: ") {
                    events += 1;
                    if events == 1 {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            ended => {
                assert!(over.load(Ordering::SeqCst), "a stream ended by itself: {ended:?}");
                return events;
            }
        }
    }
}
