//! Services that fail under a pair: restarted here, failed over, and stopped with a sentence, with
//! nothing lost. Needs root, /dev/fuse, Python and `PostgreSQL` 15.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

mod ends;
mod pair;
mod told;

use pair::{Pair, done, within};

const POSTGRESQL: &str = "/usr/lib/postgresql/15/bin";

/// Answers every question as the file `answer` says, which it removes when it starts.
const SERVER: &str = r#"
import http.server, os, sys, time
answer, port = sys.argv[1], int(sys.argv[2])
if os.path.exists(answer): os.remove(answer)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        how = open(answer).read().strip() if os.path.exists(answer) else "200"
        if how == "slow": time.sleep(600)
        self.send_response(int(how))
        self.end_headers()
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer.daemon_threads = True
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

/// Three services, the second of which answers as it is told.
fn three(home: &Path, port: u16) -> String {
    let script = home.join("server.py");
    fs::write(&script, SERVER).unwrap();
    let (script, answer) = (script.display(), home.join("answer"));
    let answer = answer.display();
    let sleep = "start = [\"/bin/sleep\", \"86400\"]\n";
    format!(
        "[[service]]\nname = \"base\"\n{sleep}\
         [[service]]\nname = \"server\"\n\
         start = [\"/usr/bin/python3\", \"{script}\", \"{answer}\", \"{port}\"]\n\
         start_seconds = 60\n\
         [[service.checker]]\nkind = \"http\"\naddress = \"127.0.0.1:{port}\"\npath = \"/health\"\n\
         interval_ms = 200\ntimeout_ms = 1500\n\
         [[service.checker]]\nkind = \"command\"\ncommand = [\"/bin/true\"]\ninterval_ms = 1000\n\
         [[service]]\nname = \"after\"\n{sleep}"
    )
}

#[test]
fn a_service_that_fails_is_restarted_fails_over_once_and_then_stops_with_its_sentence() {
    let pair = Pair::start(None, three);
    let answers = |node, how: &str| fs::write(pair.path(node, "answer"), how).unwrap();
    let base = pair.runs(1, 0, 0);
    let (server, after) = (pair.runs(1, 1, 0), pair.runs(1, 2, 0));

    // Twice in a row another status than 200: restarted, with the one after it.
    answers(1, "503");
    assert_ne!(pair.runs(1, 1, 1), server);
    assert_ne!(pair.runs(1, 2, 0), after);
    assert_eq!(pair.runs(1, 0, 0), base, "an earlier one goes on");
    pair.stands(1, "PRIM");
    let table = done(&pair.duolog(1, &["status"]));
    let rows = table.lines().filter(|line| line.starts_with("  checker")).count();
    assert!(rows == 2 && table.contains("restarted once lately"), "{table}");

    // An answer that comes too late is none, and no restart is left.
    answers(1, "slow");
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    assert_eq!(pair.why(2), "swap");
    pair.runs(2, 1, 0);
    assert!(pair.log(1).contains("did not answer its http checker"), "{}", pair.log(1));

    // It fails there too, so soon that nobody may take it over.
    answers(2, "500");
    pair.runs(2, 1, 1);
    answers(2, "500");
    let status = pair.shows(2, "STOP", |status| status["state"] == "STOP");
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("services failed: server answers http://127.0.0.1:"), "{status}");
    assert!(sentence.contains("with status 500 and not 200 after a restart here"), "{status}");
    assert!(sentence.contains("less than 10 minutes ago"), "{status}");
    assert!(sentence.ends_with("; mend it and start this node"), "{status}");
    pair.never(1, "it took over", |status| status["state"] == "ALONE");
    // An operator has mended it.
    done(&pair.duolog(2, &["start"]));
    pair.stands(2, "PRIM");
    pair.runs(2, 1, 0);
}

/// Waits for an alarm with that in it, alone or as one of several.
fn alarm(pair: &Pair, node: usize, part: &str) {
    pair.shows(node, &format!("an alarm: {part}"), |status| {
        let alarms = status["alarms"].as_array().into_iter().flatten();
        alarms.filter_map(Value::as_str).any(|alarm| alarm.contains(part))
    });
}

/// Also over a restart of the daemon, and by the node that serves next.
#[test]
fn all_checkers_are_stopped_at_both_until_they_are_started_and_an_end_counts_meanwhile() {
    const STOPPED: &str = "all checkers of services are stopped";
    let mut pair = Pair::start(None, three);
    let server = pair.runs(1, 1, 0);
    done(&pair.duolog(1, &["checkers", "stop", "--node", "both"]));
    for node in [1, 2] {
        alarm(&pair, node, STOPPED);
    }
    // The word of 0.1.0 for the other switch does not undo it, and says so.
    let resumed = pair.duolog(1, &["checkers", "resume", "--node", "other"]);
    let refused = String::from_utf8_lossy(&resumed.stderr);
    assert!(
        !resumed.status.success() && refused.contains("not suspended but stopped"),
        "{refused}"
    );
    let table = done(&pair.duolog(1, &["status"]));
    let stopped = |row: &&str| row.starts_with("  checker") && row.ends_with(", stopped");
    assert_eq!(table.lines().filter(stopped).count(), 2, "{table}");
    let answers = |pair: &Pair, node, how: &str| {
        fs::write(pair.path(node, "answer"), how).unwrap();
    };
    answers(&pair, 1, "503");
    pair.never(1, "it is restarted, or looked at", |status| {
        let service = &status["services"][1];
        service["pid"] != server || service["state"] != "runs" || {
            service["checkers"].as_array().unwrap().iter().any(|it| it["found"].is_object())
        }
    });
    let pid = Pid::from_raw(i32::try_from(server).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_ne!(pair.runs(1, 1, 1), server, "its end counts");

    pair.start_anew(1);
    alarm(&pair, 1, STOPPED);
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    let there = pair.runs(2, 1, 0);
    answers(&pair, 2, "503");
    pair.never(2, "it is restarted", |status| status["services"][1]["pid"] != there);
    done(&pair.duolog(2, &["swap", "--yes"]));
    pair.stands(1, "PRIM");
    let server = pair.runs(1, 1, 0);
    answers(&pair, 1, "503");
    pair.never(1, "it is restarted", |status| status["services"][1]["pid"] != server);

    answers(&pair, 1, "200");
    done(&pair.duolog(2, &["checkers", "start", "--node", "both"]));
    for node in [1, 2] {
        pair.shows(node, "no alarm", |status| status["alarms"] == serde_json::json!([]));
    }
    pair.shows(1, "it is looked at", |status| {
        status["services"][1]["checkers"][0]["found"]["result"] == "ok"
    });
    answers(&pair, 1, "503");
    assert_ne!(pair.runs(1, 1, 1), server);
    let commands = done(&pair.duolog(1, &["logs", "--commands"]));
    assert!(
        commands.contains("checkers stop") && commands.contains("checkers start"),
        "{commands}"
    );
}

#[test]
fn error_detection_is_suspended_at_both_and_what_runs_where_it_must_not_is_an_alarm() {
    let pair = Pair::start(None, three);
    let server = pair.runs(1, 1, 0);
    done(&pair.duolog(1, &["error-detection", "suspend", "--node", "both"]));
    for node in [1, 2] {
        alarm(&pair, node, "the error detection of services is suspended");
        let kept = fs::read_to_string(pair.path(node, "state/settings/operator.json")).unwrap();
        assert!(kept.contains("\"checkers\": false"), "{kept}");
    }
    fs::write(pair.path(1, "answer"), "503").unwrap();
    pair.never(1, "it is restarted", |status| status["services"][1]["pid"] != server);
    pair.shows(1, "its checker looks all the same, and says so", |status| {
        let service = &status["services"][1];
        service["state"] == "failed" && service["checkers"][0]["found"]["result"] == "failed"
    });
    done(&pair.duolog(2, &["error-detection", "resume", "--node", "both"]));
    // A check counts once it has passed, or the service has had its time to start.
    fs::write(pair.path(1, "answer"), "200").unwrap();
    assert_eq!(pair.runs(1, 1, 0), server);
    fs::write(pair.path(1, "answer"), "503").unwrap();
    assert_ne!(pair.runs(1, 1, 1), server);

    // Node2 does not serve, and yet somebody answers there.
    let alarms = |status: &Value| status["alarms"].to_string();
    assert_eq!(alarms(&pair.status(2)), "[]");
    let stray = TcpListener::bind(("127.0.0.1", pair.ports[5].number())).unwrap();
    let status = pair.shows(2, "an alarm", |status| status["alarms"][0].is_string());
    let text = alarms(&status);
    assert!(text.contains("service server seems to run here, where it must not"), "{text}");
    assert!(
        text.contains("something answers on 127.0.0.1:") && text.contains("; end it"),
        "{text}"
    );
    assert!(done(&pair.duolog(2, &["status"])).contains("\nALARM "), "it is in the table");
    drop(stray);
    pair.shows(2, "no alarm", |status| status["alarms"] == serde_json::json!([]));
    assert_eq!(alarms(&pair.status(1)), "[]", "where it serves it may answer");
}

/// `PostgreSQL` below each node, from its preset but for the start, which fills the directory first.
fn postgresql(template: &Path, home: &Path, port: u16) -> String {
    let script = home.join("start.sh");
    let mut text = String::from("umask 077\n");
    let (data, template) = (home.join("data"), template.display());
    let data = data.display();
    writeln!(
        text,
        "[ -e {data}/PG_VERSION ] || {{ cp -a {template}/. {data}/ && mv {data}/version \
         {data}/PG_VERSION; }} || exit 1\n\
         exec {POSTGRESQL}/postgres -D {data} -p {port} -c listen_addresses= \
         -c unix_socket_directories={} -c shared_buffers=16MB",
        home.display()
    )
    .unwrap();
    fs::write(&script, text).unwrap();
    done(&Command::new("chown").arg("postgres").arg(home).output().unwrap());
    format!(
        "[[service]]\npreset = \"postgresql\"\nprograms = \"{POSTGRESQL}\"\nport = {port}\n\
         socket_dir = \"{0}\"\nstart = [\"/bin/sh\", \"{1}\"]\n\
         [[service.checker]]\nkind = \"sql\"\nquery = \"SELECT count(*) FROM pg_class\"\n\
         interval_ms = 500\ntimeout_ms = 20000\n",
        home.display(),
        script.display()
    )
}

/// A cluster that is copied; its mark comes last, so that half a copy is none.
fn make_template(at: &Path) {
    let mut init = Command::new("setpriv");
    init.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    init.arg(format!("{POSTGRESQL}/initdb")).args(["--auth=trust", "--username=postgres", "-D"]);
    done(&init.arg(at).current_dir("/").output().unwrap());
    #[expect(clippy::disallowed_methods, reason = "a test's file need not survive a power cut")]
    fs::rename(at.join("PG_VERSION"), at.join("version")).unwrap();
}

/// Runs a statement at a node, as a client does.
fn sql(pair: &Pair, node: usize, statement: &str) -> Option<String> {
    let mut psql = Command::new(format!("{POSTGRESQL}/psql"));
    psql.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-d", "postgres", "-c", statement]);
    psql.arg("-h").arg(pair.path(node, "")).arg("-p");
    psql.arg(pair.ports[3 + node].number().to_string()).env("PGCONNECT_TIMEOUT", "10");
    let output = psql.stdin(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// What a client was promised. A number that was not acknowledged is not used again.
#[derive(Default)]
struct Journal {
    next: u32,
    acknowledged: Vec<u32>,
}

impl Journal {
    fn commit(&mut self, pair: &Pair, node: usize) -> bool {
        let number = self.next;
        self.next += 1;
        let insert = format!("INSERT INTO t VALUES ({number}, repeat('x', 2000))");
        let acknowledged = sql(pair, node, &insert).is_some();
        if acknowledged {
            self.acknowledged.push(number);
        }
        acknowledged
    }

    /// All of it is there, each once.
    fn whole(&self, pair: &Pair, node: usize) {
        let numbers: Vec<_> = self.acknowledged.iter().map(ToString::to_string).collect();
        let query = format!("SELECT count(*) FROM t WHERE n IN ({})", numbers.join(", "));
        let shown = within("the server takes clients", || sql(pair, node, &query));
        assert_eq!(shown, numbers.len().to_string());
    }
}

/// The server is killed by force while a client commits.
fn kill_under_load(pair: &Pair, node: usize, journal: &mut Journal) {
    let status = pair.shows(node, "the server", |status| status["services"][0]["state"] == "runs");
    let pid = i32::try_from(status["services"][0]["pid"].as_i64().unwrap()).unwrap();
    for _ in 0..10 {
        assert!(journal.commit(pair, node), "{}", pair.log(node));
    }
    // A client that does not go when its server does.
    let busy = std::thread::spawn({
        let (home, port) = (pair.path(node, ""), pair.ports[3 + node].number());
        move || {
            let mut psql = Command::new(format!("{POSTGRESQL}/psql"));
            psql.args(["-X", "-q", "-U", "postgres", "-d", "postgres", "-p", &port.to_string()]);
            psql.args(["-c", "SELECT sum(sqrt(x)) FROM generate_series(1, 1000000000) x", "-h"]);
            psql.arg(home).stderr(Stdio::null()).output().unwrap()
        }
    });
    let query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT sum(sqrt%'";
    within("the long query", || (sql(pair, node, query)? != "0").then_some(()));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // Nobody is waited for: what is acknowledged now must be there as well.
    while journal.commit(pair, node) {}
    assert!(!busy.join().unwrap().status.success());
}

#[test]
fn a_killed_sql_server_is_restarted_then_fails_over_and_then_stops_with_nothing_lost() {
    let templates = tempfile::tempdir().unwrap();
    fs::set_permissions(templates.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let template = templates.path().join("template");
    make_template(&template);
    let pair = Pair::start(Some("postgres"), |home, port| postgresql(&template, home, port));
    let first = pair.runs(1, 0, 0);
    within("a table", || sql(&pair, 1, "CREATE TABLE t (n int, body text)"));
    let mut journal = Journal::default();

    kill_under_load(&pair, 1, &mut journal);
    assert_ne!(pair.runs(1, 0, 1), first);
    let status = pair.stands(1, "PRIM");
    assert!(status["directories"][0]["mounted"] == true, "{status}");
    journal.whole(&pair, 1);

    kill_under_load(&pair, 1, &mut journal);
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    assert_eq!(pair.why(2), "swap");
    pair.runs(2, 0, 0);
    journal.whole(&pair, 2);

    // Nobody is left to fail over to.
    done(&pair.duolog(1, &["stop", "--yes"]));
    pair.stands(2, "ALONE");
    kill_under_load(&pair, 2, &mut journal);
    pair.runs(2, 0, 1);
    journal.whole(&pair, 2);
    kill_under_load(&pair, 2, &mut journal);
    let status = pair.shows(2, "STOP", |status| status["state"] == "STOP");
    let sentence = status["sentence"].as_str().unwrap();
    let begins = "services failed: postgresql was ended by signal 9 after a restart here; what it \
                  said is in ";
    assert!(sentence.starts_with(begins), "{sentence}");
    let ends = "it did not fail over: there is no second copy that is up to date \
                (connection error); mend it and start this node";
    assert!(sentence.ends_with(ends), "{sentence}");
    done(&pair.duolog(2, &["start"]));
    pair.stands(2, "ALONE");
    journal.whole(&pair, 2);
}
