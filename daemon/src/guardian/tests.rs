//! What guardian and daemon promise each other, with real processes, mounts and descendants.
//!
//! ```text
//!  test (owns the site)
//!    └─ guardian: `a_guardian` below
//!         └─ daemon: `a_daemon` below; it serves a mount in which every look for a name hangs
//!              ├─ stat, which hangs there, and which no signal ends
//!              └─ a process that hears no signal, and one that left its group, session and parent
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duolog_engine::fuse::{
    Attr, Connection, Errno, Handler, MountOptions, Op, Reply, Request, Session,
};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_child_subreaper};

use super::tether::Tether;
use super::watch::guard;
use super::wire::Lease;
use super::{FENCED, Farewell, Fence, boottime_ms};
use crate::config::Config;
use crate::logs::Logs;
use crate::processes::{self, Process, own};

const BOUND: Duration = Duration::from_mins(1);
const AT: &str = "DUOLOG_TEST_AT";
const PART: &str = "DUOLOG_TEST_PART";
const INCARNATION: u64 = 7;
/// How long a daemon lives on that has closed its end of the socket.
const SILENT_MS: u64 = 1500;

fn config(at: &Path) -> Config {
    let at = at.display();
    let text = format!(
        "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nnumber = 1\n\
         state_dir = \"{at}/state\"\n[pair]\nprofile = \"fast\"\n\
         drop_address = [\"/bin/sh\", \"-c\", \"echo dropped > {at}/address\"]\n\
         [[directory]]\npath = \"{at}/data\"\n"
    );
    Config::parse(&text, Path::new("/")).unwrap()
}

/// A file system in which whoever looks for a name waits for ever.
#[derive(Default)]
struct Hanging {
    hang: Mutex<Vec<Reply>>,
    hanging: AtomicUsize,
}

impl Handler for Hanging {
    fn handle(&self, request: Request<'_>) {
        match request.op {
            Op::GetAttr { .. } => {
                let attr = Attr { ino: 1, mode: 0o040_755, nlink: 2, ..Attr::default() };
                request.reply.attr(&attr, Duration::from_mins(1));
            }
            Op::Lookup { .. } => {
                self.hang.lock().unwrap().push(request.reply);
                self.hanging.fetch_add(1, Ordering::SeqCst);
            }
            Op::Forget { .. } => {}
            _ => request.reply.error(Errno::NOSYS),
        }
    }
}

fn mount(path: &Path) -> (Session, std::sync::Arc<Hanging>) {
    fs::create_dir_all(path).unwrap();
    let handler = std::sync::Arc::new(Hanging::default());
    (Session::mount(&MountOptions::new(path), handler.clone()).unwrap(), handler)
}

fn look_in(path: &Path) -> Child {
    Command::new("/usr/bin/stat").arg(path.join("name")).stderr(Stdio::null()).spawn().unwrap()
}

/// Writes down what is still there at the moment when the others would be told.
struct Note(PathBuf);

impl Farewell for Note {
    fn say(&self, incarnation: u64, ended_ms: u64) -> std::io::Result<()> {
        let left = served(&self.0).into_iter().filter(|it| processes::of(it.pid) == Some(*it));
        let left: Vec<_> = left.map(|process| processes::name(&process)).collect();
        let mounted = Connection::find(&self.0.join("data"), "duolog")?.is_some();
        let address = self.0.join("address").exists();
        assert!(ended_ms <= boottime_ms());
        let text = format!("{incarnation} left {left:?} mounted {mounted} dropped {address}\n");
        fs::write(self.0.join("gone"), text)
    }
}

/// Who ran when the daemon was about to end.
fn served(at: &Path) -> Vec<Process> {
    let text = fs::read_to_string(at.join("served")).unwrap_or_default();
    let process = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        let pid = Pid::from_raw(pid.parse().ok()?)?;
        Some(Process { pid, started: started.parse().ok()? })
    };
    text.lines().filter_map(process).collect()
}

/// Not a test: the guardian of the others.
#[test]
fn a_guardian() {
    let Some(at) = std::env::var_os(AT).filter(|_| std::env::var_os(PART).is_some()) else {
        return;
    };
    let at = PathBuf::from(at);
    crate::logging::begin(false);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "guardian::tests::a_daemon", "--nocapture"]);
    let limit = Duration::from_millis(300);
    let code = guard(
        &config(&at),
        &Logs::at(&at.join("logs")),
        command,
        false,
        limit,
        Some(&Note(at.clone())),
    )
    .unwrap();
    let computed = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let ms = computed.tv_sec * 1000 + computed.tv_nsec / 1_000_000;
    fs::write(at.join("computed"), format!("{ms}\n")).unwrap();
    std::process::exit(code.into());
}

/// Not a test: the daemon of the others.
#[test]
fn a_daemon() {
    let (Some(at), Some(part)) = (std::env::var_os(AT), std::env::var_os(PART)) else { return };
    let (at, part) = (PathBuf::from(at), part.into_string().unwrap());
    let tether = Tether::take().unwrap();
    if part == "silent" {
        drop(tether);
        let end = boottime_ms() + SILENT_MS;
        own::within(BOUND, || (boottime_ms() >= end).then_some(()));
        std::process::exit(7);
    }
    set_child_subreaper(Some(getpid())).unwrap();
    let fence = Fence::new(&config(&at), &Logs::at(&at.join("logs")));
    tether.listen(fence, Some(Box::new(Note(at.clone()))), |_| {}).unwrap();
    if part == "second" {
        kill_process(getpid(), Signal::KILL).unwrap();
    }

    tether.lease(Lease::Until(boottime_ms() + 60_000)).unwrap();
    tether.serves(INCARNATION).unwrap();
    let (_session, handler) = mount(&at.join("data"));
    let script = format!(
        "trap '' TERM HUP; echo $$ > {}/escaped; while :; do sleep 600; done",
        at.display()
    );
    fs::write(at.join("script"), &script).unwrap();
    let deaf = format!(
        "trap '' TERM HUP; (setsid sh {}/script & exit); while :; do sleep 600; done",
        at.display()
    );
    let mut deaf =
        Command::new("/bin/sh").args(["-c", &deaf]).stdin(Stdio::null()).spawn().unwrap();
    let mut hung = vec![look_in(&at.join("data"))];
    if part == "elsewhere" {
        hung.push(look_in(&at.join("elsewhere")));
    }
    own::within(BOUND, || {
        let escaped = fs::read_to_string(at.join("escaped")).unwrap_or_default();
        let hangs = handler.hanging.load(Ordering::SeqCst) == 1;
        (escaped.ends_with('\n') && hangs).then_some(())
    });
    let below = processes::below(getpid()).unwrap();
    assert!(below.len() >= 5, "{below:?}");
    let lines: Vec<_> =
        below.iter().map(|it| format!("{} {}\n", it.pid.as_raw_nonzero(), it.started)).collect();
    fs::write(at.join("served"), lines.concat()).unwrap();
    fs::write(at.join("daemon"), format!("{}\n", std::process::id())).unwrap();
    match part.as_str() {
        "killed" | "elsewhere" => {
            if part == "elsewhere" {
                own::within(BOUND, || at.join("go").exists().then_some(()));
            }
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        "hangs" => {
            tether.lease(Lease::Until(boottime_ms() + 100)).unwrap();
            kill_process(getpid(), Signal::STOP).unwrap();
        }
        "orphaned" => kill_process(getppid().unwrap(), Signal::KILL).unwrap(),
        _ => {}
    }
    // Whatever comes next comes from outside.
    deaf.wait().unwrap();
    for child in &mut hung {
        child.wait().unwrap();
    }
    own::within(BOUND, || None::<()>);
}

/// A place of its own, a guardian in it, and their end.
struct Site {
    directory: tempfile::TempDir,
    guardian: Child,
}

impl Site {
    fn new(part: &str) -> Self {
        set_child_subreaper(Some(getpid())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        Self::at(directory, part)
    }

    fn at(directory: tempfile::TempDir, part: &str) -> Self {
        let said = fs::File::create(directory.path().join("said")).unwrap();
        let guardian = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guardian::tests::a_guardian", "--nocapture"])
            .env(AT, directory.path())
            .env(PART, part)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        Self { directory, guardian }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str) -> String {
        own::within(BOUND, || Some(self.read(name)).filter(|text| text.ends_with('\n')))
    }

    fn ended(&mut self) -> Option<i32> {
        let status = own::within(BOUND, || self.guardian.try_wait().unwrap());
        status.code()
    }

    /// The others were told, once everything was gone and not before.
    fn everything_was_gone_when_it_was_said(&self) {
        let said = self.wait_for("gone");
        let expected = format!("{INCARNATION} left [] mounted false dropped true\n");
        assert_eq!(said, expected, "{}", self.read("said"));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for mount in ["data", "elsewhere"] {
            if let Ok(Some(mount)) = Connection::find(&self.path(mount), "duolog") {
                mount.abort();
                mount.detach().ok();
            }
        }
        processes::kill(BOUND, || processes::below(getpid())).unwrap().ok();
        if std::thread::panicking() {
            eprintln!("{}", self.read("said"));
        }
    }
}

#[test]
fn a_daemon_that_is_killed_leaves_nothing_behind() {
    own::process("guardian::tests::a_daemon_that_is_killed_leaves_nothing_behind", || {
        let mut site = Site::new("killed");
        assert_eq!(site.ended(), Some(FENCED.into()));
        site.everything_was_gone_when_it_was_said();
        assert_eq!(processes::below(getpid()).unwrap(), []);
    });
}

/// Stopped, it neither serves nor ends, and its mount answers nobody.
#[test]
fn a_daemon_that_hangs_is_fenced_when_its_lease_is_over() {
    own::process("guardian::tests::a_daemon_that_hangs_is_fenced_when_its_lease_is_over", || {
        let mut site = Site::new("hangs");
        assert_eq!(site.ended(), Some(FENCED.into()));
        site.everything_was_gone_when_it_was_said();
        assert_eq!(processes::below(getpid()).unwrap(), []);
    });
}

#[test]
fn a_daemon_whose_guardian_is_killed_fences_itself() {
    own::process("guardian::tests::a_daemon_whose_guardian_is_killed_fences_itself", || {
        let mut site = Site::new("orphaned");
        assert_eq!(site.ended(), None, "it was killed");
        site.everything_was_gone_when_it_was_said();
        let daemon = Pid::from_raw(site.read("daemon").trim().parse().unwrap()).unwrap();
        let status = own::within(BOUND, || {
            let options = rustix::process::WaitOptions::NOHANG;
            rustix::process::waitpid(Some(daemon), options).unwrap()
        });
        assert_eq!(status.1.exit_status(), Some(FENCED.into()));
    });
}

/// A process that waits for somebody else's mount survives SIGKILL: nobody may take over, until
/// that mount answers.
#[test]
fn nobody_is_told_while_somebody_is_left() {
    own::process("guardian::tests::nobody_is_told_while_somebody_is_left", || {
        set_child_subreaper(Some(getpid())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let (elsewhere, handler) = mount(&directory.path().join("elsewhere"));
        let mut site = Site::at(directory, "elsewhere");
        own::within(BOUND, || (handler.hanging.load(Ordering::SeqCst) == 1).then_some(()));
        fs::write(site.path("go"), "").unwrap();
        own::within(BOUND, || site.read("said").contains("cannot be fenced").then_some(()));
        assert!(site.guardian.try_wait().unwrap().is_none());
        assert!(!site.path("gone").exists(), "{}", site.read("gone"));
        assert!(Connection::find(&site.path("data"), "duolog").unwrap().is_none());
        assert!(site.read("said").contains("stat ("), "{}", site.read("said"));
        elsewhere.unmount(Duration::ZERO).ok();
        assert_eq!(site.ended(), Some(FENCED.into()));
        site.everything_was_gone_when_it_was_said();
    });
}

/// Nothing was served, so there is nothing to say.
#[test]
fn a_daemon_that_served_nothing_is_not_fenced() {
    own::process("guardian::tests::a_daemon_that_served_nothing_is_not_fenced", || {
        let mut site = Site::new("second");
        assert_eq!(site.ended(), Some(1));
        assert!(!site.path("gone").exists() && !site.path("address").exists());
    });
}

/// A daemon that dies has closed its socket before it is gone. Whoever looked at that socket all
/// the time meanwhile, before everybody else, would keep the processor from it.
#[test]
fn a_daemon_that_is_about_to_end_is_not_kept_from_it() {
    own::process("guardian::tests::a_daemon_that_is_about_to_end_is_not_kept_from_it", || {
        let mut site = Site::new("silent");
        assert_eq!(site.ended(), Some(7));
        let ms: u64 = site.wait_for("computed").trim().parse().unwrap();
        assert!(ms < SILENT_MS / 3, "the guardian computed for {ms} ms while it waited");
    });
}
