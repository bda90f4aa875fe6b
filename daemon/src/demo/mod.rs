//! `duolog demo`: shows, on one computer, that a commit survives the loss of a computer.
//!
//! Two nodes run as an operator would run them; an engine commits rows in node1's directory, and
//! every acknowledged commit is written down outside of it. At a random moment node1 is killed
//! and all that it had is moved away. node2 takes over; its directory is opened by the engine, and
//! every acknowledged row is compared. More rows are committed there. Then node1 comes back with
//! what it had, gets what it lacks, and its part by a swap; and every row is compared once more.
//! The consoles of both nodes show all of it, and stay for those who want to look.
//! This module is the story; who does what is in the others.

mod child;
mod cleanup;
mod console;
mod journal;
mod nodes;
mod postgresql;
mod rows;
mod sqlite;
mod writer;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use duolog_wal::NodeId;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{Demo, Engine, KillAfter};
use crate::config::Preset;
use crate::mounts;
use crate::status::{State, Status, bytes};
use child::Child;
use console::{Consoles, Stays};
use nodes::{Node, Pair};
use rows::{Random, Row, RowId, Verdict};

pub(crate) use writer::run as write;

/// The fewest acknowledged commits that prove anything.
pub(crate) const LEAST_COMMITS: u64 = 500;
/// How long the writers may take for them.
const LEAST_COMMITS_WITHIN: Duration = Duration::from_mins(2);
/// Rows that are committed while node2 is all that is left.
const ROWS_ALONE: u32 = 100;
/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(20);

/// The last line of `duolog demo --json`.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    acknowledged: u64,
    survived: u64,
    lost: u64,
    in_flight: u64,
    unexplained: u64,
    commit_p50_us: u32,
    commit_p99_us: u32,
    shipped_bytes: u64,
    wire_bytes: u64,
    takeover_ms: u64,
    resync_ms: u64,
    resync_bytes: u64,
    swap_ms: u64,
    split_brains: u64,
    engine: &'static str,
    writers: u16,
    seed: u64,
    load_ms: u64,
    total_ms: u64,
    /// Where the pair can be looked at; nothing where it ends with the story.
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<Consoles>,
}

/// Tells the story as it goes.
#[derive(Debug)]
struct Narrator {
    begun: Instant,
    json: bool,
    bar: ProgressBar,
}

impl Narrator {
    fn say(&self, text: impl AsRef<str>) {
        let line = format!("{:6.2} s  {}", self.begun.elapsed().as_secs_f64(), text.as_ref());
        self.bar.suspend(|| if self.json { eprintln!("{line}") } else { println!("{line}") });
    }
}

/// `duolog demo`. Whether every acknowledged row was found.
pub(crate) fn run(options: &Demo) -> anyhow::Result<bool> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => u64::from(new_seed()?),
    };
    check_fuse()?;
    let engine = match options.engine {
        Engine::Sqlite => Sql::Sqlite,
        Engine::Postgresql => Sql::Postgresql(postgresql::Installed::find()?),
    };
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new()
        .prefix("duolog-demo-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))?
        .keep();
    let cleanup = cleanup::begin(&directory, options.keep.is_some())?;
    let narrator =
        Narrator { begun: Instant::now(), json: options.json, bar: ProgressBar::hidden() };
    let stays = Stays::of(options);
    let outcome = Story { options, seed, engine, directory, narrator, stays }.tell()?;
    let proven = outcome.proves();
    cleanup::told(i32::from(!proven));
    if options.json {
        println!("{}", serde_json::to_string(&outcome)?);
    }
    if let (Some(stays), Some(console)) = (stays, &outcome.console) {
        stays.wait(console, options.json)?;
    }
    drop(cleanup);
    Ok(proven)
}

impl Outcome {
    /// Whether no acknowledged commit is lost, and there were enough of them to say so.
    fn proves(&self) -> bool {
        self.lost == 0
            && self.split_brains == 0
            && self.unexplained == 0
            && self.acknowledged >= LEAST_COMMITS
            && self.survived == self.acknowledged
    }
}

/// The engine and what it needs.
#[derive(Debug)]
enum Sql {
    Sqlite,
    Postgresql(postgresql::Installed),
}

impl Sql {
    const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgresql(_) => "postgresql",
        }
    }
}

/// The rows, opened where a node serves them.
enum Opened<'a> {
    Sqlite(&'a Path),
    Postgresql(&'a Path),
}

impl Opened<'_> {
    /// Commits `count` rows one at a time, as a writer of its own.
    fn commit(&self, seed: u64, writer: u16, count: u32) -> anyhow::Result<()> {
        let mut rows = (1..=count).map(|number| Row::new(seed, RowId { writer, number }));
        match self {
            Self::Sqlite(data) => {
                let mut writer = sqlite::Writer::connect(&sqlite::file(data))?;
                rows.try_for_each(|row| writer.commit(&row))
            }
            Self::Postgresql(sockets) => {
                let mut writer = postgresql::Writer::connect(sockets)?;
                rows.try_for_each(|row| writer.commit(&row))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is moved away need not be durable")]
fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} away", from.display()))
}

struct Story<'a> {
    options: &'a Demo,
    seed: u64,
    engine: Sql,
    directory: PathBuf,
    narrator: Narrator,
    /// Whether the pair runs on at the end.
    stays: Option<Stays>,
}

impl Story<'_> {
    fn tell(mut self) -> anyhow::Result<Outcome> {
        let console = Consoles::new()?;
        let (pair, mut node1, mut node2) = self.form_pair(&console)?;
        let console = console.of(&pair);
        self.narrator.say(console.told());
        let sockets = self.directory.join("sql");
        let server = self.begin_engine(&pair, &sockets)?;

        let writers = self.options.writers.unwrap_or(match self.engine {
            Sql::Sqlite => 1,
            Sql::Postgresql(_) => 4,
        });
        let journal = self.directory.join("journal");
        let mut writer = self.start_writer(&pair, &sockets, &journal, writers)?;
        let load = Instant::now();
        self.write_until_the_moment(&mut writer, &mut node1, &mut node2, &journal)?;
        let status = node1.status().context("node1 does not say how it stands")?;
        let killed = Instant::now();
        node1.kill();
        let load_ms = millis(load.elapsed());
        self.lose_node1(&pair, node1, writer, server)?;
        let taken = node2.reaches(State::Alone)?;
        let takeover_ms = millis(killed.elapsed());
        self.narrator.say(format!("node2 took over within {takeover_ms} ms: {}", taken.sentence));

        let entries = journal::read(&journal)?;
        let (p50, p99) =
            (journal::percentile_us(&entries, 50), journal::percentile_us(&entries, 99));
        self.say_load(&status, entries.len(), load_ms, p50, p99);

        let mut acknowledged: Vec<RowId> = entries.iter().map(|entry| entry.id).collect();
        let mut verdict = self.look(&pair, NodeId::Node2, &sockets, &acknowledged, |engine| {
            engine.commit(self.seed, writers, ROWS_ALONE)
        })?;
        acknowledged.extend((1..=ROWS_ALONE).map(|number| RowId { writer: writers, number }));
        self.narrator.say(format!("{ROWS_ALONE} rows more were committed on node2, ALONE"));

        let back = Instant::now();
        let mut node1 = self.bring_back(&pair)?;
        node1.reaches(State::Second)?;
        let caught_up = node2.reaches(State::Prim)?;
        let resync_ms = millis(back.elapsed());
        // Log and contents, both before compression.
        let crossed = |status: &Status| {
            let shipped = status.peer.as_ref().map_or(0, |peer| peer.shipped_bytes);
            shipped + status.resyncs_given.message_bytes
        };
        let resync_bytes = crossed(&caught_up).saturating_sub(crossed(&taken));
        self.narrator.say(format!(
            "node1 came back and is SECOND after {resync_ms} ms, with {} from node2",
            bytes(resync_bytes)
        ));

        node2.is_uptodate()?;
        let swap = Instant::now();
        node2.swap()?;
        node1.reaches(State::Prim)?;
        let swap_ms = millis(swap.elapsed());
        self.narrator.say(format!("swapped within {swap_ms} ms: node1 is PRIM again"));
        let in_the_end = self.look(&pair, NodeId::Node1, &sockets, &acknowledged, |_| Ok(()))?;
        match (&self.stays, &self.engine) {
            (None, _) => {
                node2.stop()?;
                node1.stop()?;
            }
            (Some(_), Sql::Sqlite) => console::keep_busy(&pair, self.seed, writers + 1)?,
            (Some(_), Sql::Postgresql(_)) => {}
        }
        let split_brains = pair.split_brains(NodeId::Node1)? + pair.split_brains(NodeId::Node2)?;

        verdict.worst_of(&in_the_end);
        let total_ms = millis(self.narrator.begun.elapsed());
        self.conclude(&verdict, p50, p99);
        let peer = status.peer.as_ref();
        Ok(Outcome {
            acknowledged: verdict.acknowledged,
            survived: verdict.survived,
            lost: verdict.lost,
            in_flight: verdict.in_flight,
            unexplained: verdict.unexplained,
            commit_p50_us: p50,
            commit_p99_us: p99,
            shipped_bytes: peer.map_or(0, |peer| peer.shipped_bytes),
            wire_bytes: peer.map_or(0, |peer| peer.wire_bytes),
            takeover_ms,
            resync_ms,
            resync_bytes,
            swap_ms,
            split_brains,
            engine: self.engine.name(),
            writers,
            seed: self.seed,
            load_ms,
            total_ms,
            console: self.stays.map(|_| console),
        })
    }

    fn form_pair(&self, console: &Consoles) -> anyhow::Result<(Pair, Node, Node)> {
        let say = |text: String| self.narrator.say(text);
        // PostgreSQL's user has to pass through to its data directory.
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o711))
            .context("cannot open the demo's directory")?;
        say(format!("seed {}, everything below {}", self.seed, self.directory.display()));
        let preset = match self.engine {
            Sql::Sqlite => Preset::Sqlite,
            Sql::Postgresql(_) => Preset::Postgresql,
        };
        let pair = Pair::make(&self.directory, preset, &console.users()?)?;
        if let Sql::Postgresql(installed) = &self.engine {
            for node in [NodeId::Node1, NodeId::Node2] {
                installed.own(&pair.data(node), 0o700)?;
            }
        }
        pair.adopt(NodeId::Node1)?;
        pair.adopt(NodeId::Node2)?;
        say("two nodes set up as a pair, each with a key of its own, data directories adopted"
            .into());
        let mut node2 = pair.start(NodeId::Node2)?;
        let mut node1 = pair.start(NodeId::Node1)?;
        let status = node1.reaches(State::Prim)?;
        node2.reaches(State::Second)?;
        say(format!("node1 is PRIM, node2 is SECOND: {}", status.sentence));
        Ok((pair, node1, node2))
    }

    fn begin_engine(
        &self,
        pair: &Pair,
        sockets: &Path,
    ) -> anyhow::Result<Option<postgresql::Server>> {
        let data = pair.data(NodeId::Node1);
        match &self.engine {
            Sql::Sqlite => {
                sqlite::create(&data)?;
                self.narrator.say("SQLite (WAL, synchronous=FULL) opened in node1's directory");
                Ok(None)
            }
            Sql::Postgresql(installed) => {
                let begun = Instant::now();
                installed.initdb(&data, &pair.log("initdb"))?;
                fs::create_dir_all(sockets).context("cannot make the socket's directory")?;
                let server = installed.start(&data, sockets, &pair.log("postgresql"))?;
                postgresql::create(sockets)?;
                let seconds = begun.elapsed().as_secs_f64();
                self.narrator.say(format!(
                    "PostgreSQL made and started in node1's directory in {seconds:.1} s"
                ));
                Ok(Some(server))
            }
        }
    }

    fn start_writer(
        &self,
        pair: &Pair,
        sockets: &Path,
        journal: &Path,
        writers: u16,
    ) -> anyhow::Result<Child> {
        let executable = std::env::current_exe().context("cannot find duolog's own executable")?;
        let mut command = Command::new(executable);
        command.arg("demo-writer").args(["--engine", self.engine.name()]).arg("--target");
        match self.engine {
            Sql::Sqlite => command.arg(sqlite::file(&pair.data(NodeId::Node1))),
            Sql::Postgresql(_) => command.arg(sockets),
        };
        command.arg("--journal").arg(journal);
        command.args([format!("--seed={}", self.seed), format!("--writers={writers}")]);
        let writer = Child::start("the writer", &mut command, &pair.log("writer"))?;
        let many = if writers == 1 {
            "1 writer commits".into()
        } else {
            format!("{writers} writers commit")
        };
        self.narrator.say(format!("{many} one row at a time; the journal is outside of the mount"));
        Ok(writer)
    }

    /// Lets the writers write until node1 is to be killed.
    fn write_until_the_moment(
        &mut self,
        writer: &mut Child,
        node1: &mut Node,
        node2: &mut Node,
        journal: &Path,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let load = Duration::from_secs(self.options.seconds);
        let mut random = Random::new(self.seed ^ 0x6b69_6c6c);
        let bar = ProgressBar::new(millis(load));
        let style = ProgressStyle::with_template("          {bar:30} {msg}")
            .context("the progress bar's form")?;
        bar.set_style(style);
        self.narrator.bar = bar.clone();
        let mut moment = None;
        loop {
            let (elapsed, count) = (begun.elapsed(), journal::count(journal));
            bar.set_position(millis(elapsed).min(millis(load)));
            let rate = u128::from(count) * 1000 / elapsed.as_millis().max(1);
            bar.set_message(format!("{count} commits acknowledged, {rate}/s"));
            if count >= LEAST_COMMITS {
                let moment = *moment.get_or_insert_with(|| match self.options.kill_after {
                    KillAfter::Rows(_) => load.max(elapsed),
                    KillAfter::Random => {
                        let left = load.saturating_sub(elapsed).max(Duration::from_millis(300));
                        elapsed + Duration::from_micros(random.below(1000 * millis(left)))
                    }
                });
                let enough =
                    matches!(self.options.kill_after, KillAfter::Rows(rows) if count >= rows);
                if elapsed >= moment || enough {
                    break;
                }
                // To the very moment, which is anywhere between two commits or within one.
                writer.wait(TICK.min(moment.saturating_sub(elapsed)))?;
            } else {
                ensure!(
                    elapsed < LEAST_COMMITS_WITHIN,
                    "only {count} commits within {LEAST_COMMITS_WITHIN:?}: this disk syncs too \
                     slowly for the demo; choose another with --dir or TMPDIR"
                );
                writer.wait(TICK)?;
            }
            node1.still_runs()?;
            node2.still_runs()?;
            writer.still_runs()?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn lose_node1(
        &self,
        pair: &Pair,
        node1: Node,
        mut writer: Child,
        server: Option<postgresql::Server>,
    ) -> anyhow::Result<()> {
        let home = pair.home(NodeId::Node1);
        mounts::abort_below(&home);
        node1.bury()?;
        writer.kill_group();
        ensure!(writer.wait(Duration::from_secs(5))?.is_some(), "the writer survived its kill");
        if let Some(server) = server {
            server.kill()?;
        }
        rename(&home, &self.lost())?;
        self.narrator.say("node1 killed with SIGKILL; its directory and its log are moved away");
        Ok(())
    }

    fn lost(&self) -> PathBuf {
        self.directory.join("lost")
    }

    /// The computer that was lost comes back, with what it had.
    fn bring_back(&self, pair: &Pair) -> anyhow::Result<Node> {
        rename(&self.lost(), &pair.home(NodeId::Node1))?;
        pair.start(NodeId::Node1)
    }

    fn say_load(&self, status: &Status, acknowledged: usize, load_ms: u64, p50: u32, p99: u32) {
        let seconds = Duration::from_millis(load_ms).as_secs_f64();
        self.narrator.say(format!(
            "{acknowledged} commits had been acknowledged in {seconds:.2} s (p50 {p50} us, p99 {p99} us)"
        ));
        if let Some(peer) = &status.peer {
            self.narrator.say(format!(
                "node1 had shipped {} of log as {} on the wire",
                bytes(peer.shipped_bytes),
                bytes(peer.wire_bytes)
            ));
        }
    }

    /// Opens the directory of the node that serves, compares every row, and has more done.
    fn look(
        &self,
        pair: &Pair,
        node: NodeId,
        sockets: &Path,
        acknowledged: &[RowId],
        more: impl FnOnce(&Opened<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Verdict> {
        let data = pair.data(node);
        let verdict = match &self.engine {
            Sql::Sqlite => {
                let held = sqlite::check(&data)?;
                self.narrator.say(format!("SQLite opened it on {node}; integrity_check says ok"));
                more(&Opened::Sqlite(&data))?;
                Verdict::of(self.seed, acknowledged, held)
            }
            Sql::Postgresql(installed) => {
                let log = pair.log(&format!("postgresql-{node}"));
                let server = installed.start(&data, sockets, &log)?;
                let held = postgresql::check(sockets)?;
                self.narrator.say(format!("PostgreSQL recovered on {node}; table and index agree"));
                more(&Opened::Postgresql(sockets))?;
                server.stop()?;
                Verdict::of(self.seed, acknowledged, held)
            }
        };
        self.narrator.say(format!(
            "{} of {} acknowledged rows are on {node}, every byte compared",
            verdict.survived, verdict.acknowledged
        ));
        Ok(verdict)
    }

    fn conclude(&self, verdict: &Verdict, p50: u32, p99: u32) {
        let say = |text: String| self.narrator.say(text);
        let Verdict { acknowledged, lost, in_flight, unexplained, first_lost, .. } = verdict;
        if *in_flight > 0 {
            say(format!("{in_flight} more had arrived that were on their way at the kill"));
        }
        if *unexplained > 0 {
            say(format!("FAILED: {unexplained} rows are there that nobody can have written"));
        }
        if let Some(RowId { writer, number }) = first_lost {
            say(format!("FAILED: {lost} rows are lost, the first is {number} of writer {writer}"));
        }
        if *acknowledged < LEAST_COMMITS {
            say(format!("FAILED: fewer than {LEAST_COMMITS} commits prove nothing"));
        }
        if verdict.kept() {
            say(format!("no commit is lost (a commit took {p50} us, p99 {p99} us)"));
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A seed that differs from run to run and is short enough to be typed again.
fn new_seed() -> anyhow::Result<u32> {
    let random = crate::keygen::new_cluster()?.0;
    Ok(u32::try_from(random >> 96)?)
}

/// Says what to install before anything is begun that needs it.
fn check_fuse() -> anyhow::Result<()> {
    ensure!(
        Path::new("/dev/fuse").exists(),
        "there is no /dev/fuse, so no directory can be captured; load it with modprobe fuse, or \
         give the container the device /dev/fuse"
    );
    if !rustix::process::geteuid().is_root() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).any(|place| place.join("fusermount3").exists());
        ensure!(found, "mounting without root needs fusermount3; apt install fuse3");
        let open = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
        open.context("may not open /dev/fuse; run as root, or let all users: chmod 666 /dev/fuse")?;
    }
    Ok(())
}
