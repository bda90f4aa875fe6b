//! What services promise, with real processes, each test in a process of its own.

use super::policy::Finding;
use super::*;
use crate::config::checkers::{CheckKind, Checker};
use crate::logs::Logs;
use crate::processes::Process;
use crate::processes::own::{process, within};
use std::fs;
use std::sync::mpsc::{Receiver, channel};

const BOUND: Duration = Duration::from_mins(1);

/// A service whose commands are scripts, so that a test can say what they do.
fn service(name: &str, start: &str, stop: Option<&str>) -> Service {
    let script = |text: &str| ["/bin/sh", "-c", text].map(String::from).to_vec();
    Service {
        name: name.into(),
        unit: None,
        start: script(start),
        stop: stop.map(script).unwrap_or_default(),
        foreground: stop.is_none(),
        start_seconds: 60,
        ..Service::of_unit("")
    }
}

struct Site {
    directory: tempfile::TempDir,
    services: Services,
    ended: Receiver<Ended>,
}

impl Site {
    fn new(services: impl FnOnce(&str) -> Vec<Service>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let services = services(directory.path().to_str().unwrap());
        let (say, ended) = channel();
        let on_end = Box::new(move |end| say.send(end).unwrap());
        let services = Services::new(&services, None, &Logs::at(directory.path()), on_end).unwrap();
        Self { directory, services, ended }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// What a service said, once it has said so many lines.
    fn said(&self, service: &str, lines: usize) -> Vec<String> {
        within(BOUND, || {
            let text = self.read("application.log");
            let mut said = Vec::new();
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                if line["service"] == service {
                    said.push(line["text"].as_str().unwrap().to_owned());
                }
            }
            (said.len() >= lines).then_some(said)
        })
    }

    fn wait_for(&self, name: &str) -> String {
        within(BOUND, || Some(self.read(name)).filter(|text| text.ends_with('\n')))
    }

    fn nobody_is_left(&self) {
        assert_eq!(processes::below(getpid()).unwrap(), []);
        assert!(!self.services.running());
    }
}

#[test]
fn services_start_in_order_and_end_in_reverse() {
    process("services::tests::services_start_in_order_and_end_in_reverse", || {
        let site = Site::new(|at| {
            let one = |name| {
                let start =
                    format!("echo +{name} >> {at}/order; sleep 600 & echo $! > {at}/{name}");
                let stop = format!("echo -{name} >> {at}/order; kill $(cat {at}/{name})");
                service(name, &start, Some(&stop))
            };
            vec![one("a"), one("b"), one("c")]
        });
        let names = |timings: Vec<Timing>| {
            assert!(timings.iter().all(|timing| !timing.killed), "{timings:?}");
            timings.into_iter().map(|timing| timing.service).collect::<Vec<_>>()
        };
        assert_eq!(names(site.services.start().unwrap()), ["a", "b", "c"]);
        assert_eq!(names(site.services.start().unwrap()), [""; 0], "they run already");
        assert!(site.services.standing().iter().all(|standing| standing.running));
        assert_eq!(names(site.services.stop(None).unwrap()), ["c", "b", "a"]);
        assert_eq!(site.read("order"), "+a\n+b\n+c\n-c\n-b\n-a\n");
        site.nobody_is_left();
        assert!(site.ended.try_recv().is_err(), "an end that was asked for is no news");
    });
}

/// Deaf to the signal, and with a child that has left group and session and whose parent is gone.
#[test]
fn who_does_not_end_is_killed_wherever_it_went() {
    process("services::tests::who_does_not_end_is_killed_wherever_it_went", || {
        let site = Site::new(|at| {
            let escape =
                format!("trap '' TERM; echo $$ > {at}/escaped; while :; do sleep 600; done");
            fs::write(format!("{at}/escape"), escape).unwrap();
            let start = format!(
                "trap '' TERM; (setsid sh {at}/escape & exit); while :; do sleep 600; done"
            );
            vec![service("deaf", &start, None)]
        });
        site.services.start().unwrap();
        site.wait_for("escaped");
        let begun = Instant::now();
        let timings = site.services.stop(Some(Duration::from_millis(300))).unwrap();
        assert!(timings[0].killed && begun.elapsed() >= Duration::from_millis(300));
        site.nobody_is_left();

        site.services.start().unwrap();
        within(BOUND, || (processes::below(getpid()).unwrap().len() >= 4).then_some(()));
        site.services.kill_all(BOUND).unwrap();
        site.nobody_is_left();
    });
}

#[test]
fn an_end_that_nobody_asked_for_is_reported_with_how() {
    process("services::tests::an_end_that_nobody_asked_for_is_reported_with_how", || {
        let site = Site::new(|at| {
            vec![
                service(
                    "itself",
                    &format!("until [ -e {at}/go ]; do sleep 0.01; done; exit 7"),
                    None,
                ),
                service("behind", &format!("sleep 600 & echo $! > {at}/behind"), Some("exit 1")),
            ]
        });
        site.services.start().unwrap();
        fs::write(site.directory.path().join("go"), "").unwrap();
        let ended = site.ended.recv_timeout(BOUND).unwrap();
        assert_eq!(
            (ended.service.as_str(), ended.how.as_str()),
            ("itself", "ended with exit code 7")
        );
        let pid = site.wait_for("behind").trim().parse().unwrap();
        let behind = Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(behind, rustix::process::Signal::KILL).unwrap();
        let ended = site.ended.recv_timeout(BOUND).unwrap();
        assert_eq!(
            (ended.service.as_str(), ended.how.as_str()),
            ("behind", "was ended by signal 9")
        );
        let standing = site.services.standing();
        assert!(standing.iter().all(|standing| !standing.running && standing.ended.is_some()));
        site.services.stop(None).unwrap();
        site.nobody_is_left();
    });
}

#[test]
fn a_start_that_fails_leaves_nobody_and_names_the_log() {
    process("services::tests::a_start_that_fails_leaves_nobody_and_names_the_log", || {
        let site = Site::new(|_| {
            let mut slow = service("slow", "sleep 600", Some("exit 0"));
            slow.start_seconds = 1;
            vec![service("bad", "echo why not; setsid sleep 600 & exit 3", Some("exit 0")), slow]
        });
        let error = site.services.start().unwrap_err();
        assert!(
            matches!(&error, StartError::Failed { how, .. } if how == "ended with exit code 3")
        );
        assert!(error.to_string().contains("application.log"), "{error}");
        assert_eq!(site.said("bad", 1), ["why not"]);
        site.services.stop(None).unwrap();
        site.nobody_is_left();

        let slow = Site::new(|_| {
            let mut slow = service("slow", "sleep 600", Some("exit 0"));
            slow.start_seconds = 1;
            vec![slow]
        });
        assert!(matches!(slow.services.start(), Err(StartError::TimedOut { seconds: 1, .. })));
        slow.nobody_is_left();
        let none = Site::new(|_| {
            let mut none = service("none", "", None);
            none.start = vec!["/does/not/exist".into()];
            vec![none]
        });
        assert!(matches!(none.services.start(), Err(StartError::Spawn { .. })));
    });
}

/// The order to end comes while a start command takes its time.
#[test]
fn an_end_calls_off_a_start_that_is_under_way() {
    process("services::tests::an_end_calls_off_a_start_that_is_under_way", || {
        let site = Site::new(|at| {
            vec![
                service("slow", &format!("echo > {at}/begun; sleep 600"), Some("exit 0")),
                service("never", &format!("echo > {at}/never"), Some("exit 0")),
            ]
        });
        for ends in [false, true] {
            let result = std::thread::scope(|scope| {
                let services = &site.services;
                let start = scope.spawn(move || services.start());
                site.wait_for("begun");
                if ends {
                    site.services.kill_all(BOUND).unwrap();
                } else {
                    assert_eq!(site.services.stop(None).unwrap(), []);
                }
                start.join().unwrap()
            });
            // A command that is killed may be seen to have failed first.
            let called_off = matches!(result, Err(StartError::Cancelled));
            let failed = matches!(result, Err(StartError::Failed { .. }));
            assert!(called_off || failed && ends, "{result:?}");
            site.nobody_is_left();
            assert!(!site.directory.path().join("never").exists());
            fs::remove_file(site.directory.path().join("begun")).unwrap();
        }
    });
}

/// A process that leaves its service's groups and sessions, as those of `PostgreSQL` do, is ended
/// with it; what an earlier service put into the background is not.
#[test]
fn a_restart_ends_all_of_a_service_and_those_after_it_and_nobody_else() {
    process(
        "services::tests::a_restart_ends_all_of_a_service_and_those_after_it_and_nobody_else",
        || {
            let site = Site::new(|at| {
                let one = |name: &str| {
                    // One that leaves the session at once, and one that leaves its parent too.
                    let start = format!(
                        "echo +{name} >> {at}/order; setsid sleep 600 & echo $! > {at}/{name}; \
                         (setsid sleep 600 & echo $! > {at}/{name}.away); \
                         trap 'echo -{name} >> {at}/order; kill $!; exit 0' TERM; \
                         while :; do sleep 0.01; done"
                    );
                    service(name, &start, None)
                };
                ["a", "b", "c"].map(one).to_vec()
            });
            site.services.start().unwrap();
            let pids = ["a", "b", "c"].map(|name| site.wait_for(name).trim().parse().unwrap());
            let [a, b, c] = pids.map(|pid| processes::of(Pid::from_raw(pid).unwrap()).unwrap());
            let away = site.wait_for("a.away").trim().parse().unwrap();
            let away = processes::of(Pid::from_raw(away).unwrap()).unwrap();
            site.wait_for("b.away");
            let lives = |process: Process| processes::of(process.pid) == Some(process);
            site.services.look();
            let before = site.services.standing();
            // The second one dies as by the kernel's hand, and its child goes on.
            let main = Pid::from_raw(before[1].pid.unwrap()).unwrap();
            rustix::process::kill_process(main, rustix::process::Signal::KILL).unwrap();
            assert_eq!(site.ended.recv_timeout(BOUND).unwrap().service, "b");
            site.services.look();
            let life = site.services.life();
            site.services.restart(1, life).unwrap();
            within(BOUND, || site.read("order").ends_with("+b\n+c\n").then_some(()));
            assert_eq!(site.read("order"), "+a\n+b\n+c\n-c\n+b\n+c\n");
            assert!(lives(a) && !lives(b) && !lives(c), "{:?}", [a, b, c].map(lives));
            assert!(lives(away), "it belongs to the one that goes on, or to nobody");
            let after = site.services.standing();
            assert_eq!(before[0], after[0]);
            assert!(after.iter().all(|standing| standing.running) && after[1].pid != before[1].pid);

            // What is over has no restarts.
            site.services.stop(None).unwrap();
            site.nobody_is_left();
            let late = site.services.restart(0, life);
            assert!(matches!(late, Err(RestartError::CalledOff)), "{late:?}");
            site.nobody_is_left();
        },
    );
}

/// Says so that one in a hurry can take the place of the one before.
#[test]
fn an_end_calls_off_a_restart_that_is_under_way() {
    process("services::tests::an_end_calls_off_a_restart_that_is_under_way", || {
        let site = Site::new(|at| {
            let again = format!("if [ -e {at}/once ]; then echo > {at}/again; sleep 600; fi");
            vec![service("slow", &format!("{again}; echo > {at}/once"), Some("exit 0"))]
        });
        site.services.start().unwrap();
        let result = std::thread::scope(|scope| {
            let (services, life) = (&site.services, site.services.life());
            let restart = scope.spawn(move || services.restart(0, life));
            site.wait_for("again");
            site.services.stop(None).unwrap();
            restart.join().unwrap()
        });
        assert!(matches!(result, Err(RestartError::CalledOff)), "{result:?}");
        site.nobody_is_left();
    });
}

/// The guardian blocks signals for itself and for all below it.
#[test]
fn a_service_takes_a_signal_that_is_blocked_here() {
    process("services::tests::a_service_takes_a_signal_that_is_blocked_here", || {
        // SAFETY: the set is filled before it is read, and no other memory is touched.
        unsafe {
            let mut some = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut some);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const some, std::ptr::null_mut());
        }
        let site = Site::new(|_| {
            let mut one = service("one", "", None);
            one.start = vec!["/bin/sleep".into(), "600".into()];
            vec![one]
        });
        site.services.start().unwrap();
        let timings = site.services.stop(None).unwrap();
        assert!(!timings[0].killed, "{timings:?}");
        site.nobody_is_left();
    });
}

/// Answers one connection after the other with this, after a while.
fn server(answer: &'static str, after: Duration) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _asked = stream.read(&mut [0; 4096]).unwrap();
                poll_for(after);
                // Whoever asked may have gone away.
                stream.write_all(answer.as_bytes()).ok();
            });
        }
    });
    address
}

fn poll_for(time: Duration) {
    let time = rustix::event::Timespec::try_from(time).unwrap();
    rustix::event::poll(&mut [], Some(&time)).unwrap();
}

#[test]
fn checks_find_what_is_well_what_failed_and_what_is_slow() {
    process("services::tests::checks_find_what_is_well_what_failed_and_what_is_slow", || {
        let good = server("HTTP/1.1 200 OK\r\n\r\n", Duration::ZERO);
        let bad = server("HTTP/1.1 503 Busy\r\n\r\n", Duration::ZERO);
        let slow = server("HTTP/1.1 200 OK\r\n\r\n", BOUND);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let http = |address| CheckKind::Http { address, path: "/up".into(), status: 200 };
        let script = |text: &str| ["/bin/sh", "-c", text].map(String::from).to_vec();
        let command = |text: &str| CheckKind::Command { command: script(text) };
        let kinds = vec![
            CheckKind::Tcp { address: good },
            CheckKind::Tcp { address: nobody },
            http(good),
            http(bad),
            http(slow),
            http(nobody),
            command("exit 0"),
            command("echo first; echo no such table >&2; exit 2"),
            command("setsid sleep 600 & sleep 600"),
            CheckKind::Sql { command: vec!["/does/not/exist".into()] },
        ];
        let site = Site::new(|_| {
            let checker = |kind| Checker {
                kind,
                interval_ms: 1000,
                timeout_ms: 2000,
                failures: 1,
                restarts: None,
            };
            let mut one = service("one", "sleep 600", None);
            one.checkers = kinds.into_iter().map(checker).collect();
            vec![one]
        });
        let check = |at| site.services.check(0, at).unwrap();
        for at in [0, 2, 6] {
            assert_eq!(check(at), Finding::Well, "{at}");
        }
        let failed = |at| match check(at) {
            Finding::Failed(cause) => cause,
            other => panic!("{at}: {other:?}"),
        };
        assert!(failed(1).starts_with("does not take connections on 127.0.0.1:"));
        assert!(failed(3).ends_with("/up with status 503 and not 200"));
        assert!(failed(5).contains("Connection refused"));
        let said = "fails its command checker: /bin/sh ended with exit code 2: no such table";
        assert_eq!(failed(7), said);
        assert!(failed(9).starts_with("cannot be checked: /does/not/exist"));
        for at in [4, 8] {
            let begun = Instant::now();
            let Finding::Slow(cause) = check(at) else { panic!("{at}") };
            assert!(cause.ends_with("within 2000 ms"), "{cause}");
            assert!(begun.elapsed() >= Duration::from_secs(2), "{at}: {:?}", begun.elapsed());
        }
        // What was too slow is gone, with all that it began.
        site.nobody_is_left();
    });
}

/// Nothing was started, and yet something answers.
#[test]
fn what_runs_where_nothing_should_is_found() {
    process("services::tests::what_runs_where_nothing_should_is_found", || {
        let somebody = server("", Duration::ZERO);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let site = Site::new(|at| {
            let tcp = |name: &str, address| {
                let mut one = service(name, "exec sleep 600", None);
                one.checkers = vec![Checker {
                    kind: CheckKind::Tcp { address },
                    interval_ms: 1000,
                    timeout_ms: 1000,
                    failures: 1,
                    restarts: None,
                }];
                one
            };
            let mut checked = tcp("checked", nobody);
            let there = format!("test -e {at}/there");
            checked.check = ["/bin/sh", "-c", &there].map(String::from).to_vec();
            // For documentation alone: it is on no computer.
            let elsewhere = tcp("elsewhere", "192.0.2.1:1".parse().unwrap());
            vec![tcp("answers", somebody), tcp("quiet", nobody), checked, elsewhere]
        });
        let found = || {
            let strays = site.services.strays();
            strays.into_iter().map(|stray| (stray.service, stray.how)).collect::<Vec<_>>()
        };
        let answers = ("answers".to_owned(), format!("something answers on {somebody}"));
        assert_eq!(found(), std::slice::from_ref(&answers));
        fs::write(site.directory.path().join("there"), "").unwrap();
        let checked = ("checked".to_owned(), "its check /bin/sh succeeds".to_owned());
        assert_eq!(found(), [answers, checked]);
    });
}

/// Of what this process gave itself a service has nothing.
#[test]
fn a_service_runs_as_its_user_with_ordinary_settings() {
    process("services::tests::a_service_runs_as_its_user_with_ordinary_settings", || {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::setpriority_process(None, -5).unwrap();
        let site = Site::new(|_| {
            let say = "id -un; id -G; umask; nice; pwd; echo $HOME; exec sleep 600";
            let mut service = service("who", say, None);
            service.user = Some("nobody".into());
            vec![service]
        });
        site.services.start().unwrap();
        let lines = site.said("who", 6);
        let user = User::named("nobody").unwrap().unwrap();
        assert_eq!(lines[0], "nobody");
        assert_eq!(lines[1], user.gid.as_raw().to_string());
        assert_eq!(lines[2..5], ["0022", "0", "/"]);
        site.services.stop(None).unwrap();
        let mut ghost = service("ghost", "", None);
        ghost.user = Some("no-such-user".into());
        let result =
            Services::new(&[ghost], None, &Logs::at(site.directory.path()), Box::new(|_| {}));
        assert!(matches!(result, Err(SetUpError::NoUser { .. })));
    });
}
