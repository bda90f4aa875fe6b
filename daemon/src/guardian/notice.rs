//! `notify`: tells whoever the operators named of each change of this node's state. It runs in the
//! guardian, so that nothing that ends services ends it, on a thread of its own, so that nobody waits
//! for it. One command at a time, in the order of the changes; each is over within its time, with
//! everything that it began.

use std::collections::HashSet;
use std::io;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::logs::Logs;
use crate::processes;
use crate::services::ordinary;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long those that were killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How often is looked whether the commands were called off.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many changes wait at most while a command runs; further ones are dropped, and said so.
const WAITING_MAX: usize = 64;
/// What is told of a sentence: it crosses to the guardian in one packet.
const SENTENCE_BYTES_MAX: usize = 1000;

/// The state of this node is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    from: String,
    to: String,
    sentence: String,
    at: String,
}

impl Change {
    /// One of this moment.
    pub(crate) fn now(from: &str, to: &str, sentence: &str) -> Self {
        let end = sentence.floor_char_boundary(SENTENCE_BYTES_MAX);
        Self {
            from: from.into(),
            to: to.into(),
            sentence: sentence[..end].into(),
            at: crate::logs::now(),
        }
    }
}

/// Has the command run; dropped, it runs what waits and then no more.
#[derive(Debug)]
pub(super) struct Teller {
    changes: SyncSender<Change>,
    /// Nothing is ever sent: the thread holds the other end until its end.
    over: Receiver<()>,
    off: Arc<AtomicBool>,
}

impl Teller {
    /// Nothing where no command is configured.
    pub(super) fn start(config: &Config, logs: &Logs) -> io::Result<Option<Self>> {
        if config.pair.notify.is_empty() {
            return Ok(None);
        }
        let command = Notify {
            words: config.pair.notify.clone(),
            node: format!("node{}", config.node.number()),
            cluster: config.cluster.to_string(),
            logs: logs.clone(),
            limit: LIMIT,
        };
        Self::of(command).map(Some)
    }

    fn of(command: Notify) -> io::Result<Self> {
        let (changes, heard) = sync_channel::<Change>(WAITING_MAX);
        let (holds, over) = sync_channel(0);
        let off = Arc::new(AtomicBool::new(false));
        let called_off = off.clone();
        thread::Builder::new().name("duolog-notify".into()).spawn(move || {
            let _holds: SyncSender<()> = holds;
            for change in heard {
                if called_off.load(Ordering::Acquire) {
                    return;
                }
                command.tell(&change, &called_off);
            }
        })?;
        Ok(Self { changes, over, off })
    }

    /// Waits for nothing.
    pub(super) fn tell(&self, change: Change) {
        if let Err(error) = self.changes.try_send(change) {
            tracing::error!(%error, "notify: not told of a change of state; the command is too slow");
        }
    }

    /// Nothing more is run, and what runs is killed; does not wait for that.
    pub(super) fn call_off(&self) {
        self.off.store(true, Ordering::Release);
    }

    /// Lets what waits be told, for no longer than that.
    pub(super) fn finish(self, limit: Duration) {
        drop(self.changes);
        if self.over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("notify: the command is ended with this node");
        }
        self.off.store(true, Ordering::Release);
    }
}

/// The command, and what it is told of this node.
struct Notify {
    words: Vec<String>,
    node: String,
    cluster: String,
    logs: Logs,
    limit: Duration,
}

/// How a command ended.
enum Ended {
    Well,
    Badly(ExitStatus),
    TooLate,
    CalledOff,
}

impl Notify {
    fn tell(&self, change: &Change, called_off: &AtomicBool) {
        let begun = Instant::now();
        let limit = self.limit;
        let program = &self.words[0];
        let how = match self.run(change, called_off) {
            Ok(Ended::Well) => "ended with exit code 0".to_owned(),
            Ok(Ended::Badly(status)) => {
                tracing::warn!(
                    "notify: {program} ended with {status}; what it said is in application.log"
                );
                status.to_string()
            }
            Ok(Ended::TooLate) => {
                tracing::warn!("notify: {program} did not end within {limit:?} and was killed");
                "killed: it took too long".into()
            }
            Ok(Ended::CalledOff) => "killed: this node is being ended".into(),
            Err(error) => {
                tracing::warn!(%error, "notify: {program} cannot be run; check [pair] notify");
                format!("cannot be run: {error}")
            }
        };
        self.logs.ran(None, "notify", &self.words, begun, &how);
    }

    fn run(&self, change: &Change, called_off: &AtomicBool) -> io::Result<Ended> {
        let mut command = ordinary(&self.words, self.logs.output_of("notify", "notify")?.into())?;
        command
            .env("DUOLOG_STATE", &change.to)
            .env("DUOLOG_FROM", &change.from)
            .env("DUOLOG_REASON", &change.sentence)
            .env("DUOLOG_NODE", &self.node)
            .env("DUOLOG_CLUSTER", &self.cluster)
            .env("DUOLOG_TIME", &change.at);
        let mut child = command.spawn()?;
        // It would hold the pipe open that what it says comes through.
        drop(command);
        let until = Instant::now() + self.limit;
        let ended = wait(&child, until, called_off);
        clear_up(&child)?;
        let status = child.wait()?;
        Ok(match ended? {
            None if status.success() => Ended::Well,
            None => Ended::Badly(status),
            Some(why) => why,
        })
    }
}

/// Waits until it has ended, without asking how; says why it is not waited for any longer.
fn wait(child: &Child, until: Instant, called_off: &AtomicBool) -> io::Result<Option<Ended>> {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let some = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&some)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if called_off.load(Ordering::Acquire) {
            return Ok(Some(Ended::CalledOff));
        }
        if Instant::now() >= until {
            return Ok(Some(Ended::TooLate));
        }
    }
}

/// Kills it, whom it began, and who is left of its group. Before it was asked how it ended: until
/// then its number is nobody else's.
fn clear_up(child: &Child) -> io::Result<()> {
    let Some(process) = processes::even_dead(Pid::from_child(child)) else { return Ok(()) };
    let mut family = HashSet::<processes::Process>::new();
    let killed = processes::kill(KILL_LIMIT, || {
        let living = processes::families(getpid(), &[process])?;
        family.extend(&living);
        Ok(living)
    })?;
    if let Err(still) = killed {
        tracing::error!(%still, "notify: what it began lives on");
    }
    // Whoever was orphaned by that is this process's child now, and nobody else asks for it.
    for orphan in family.iter().filter(|member| **member != process) {
        waitpid(Some(orphan.pid), WaitOptions::NOHANG).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::processes::own;

    const BOUND: Duration = Duration::from_secs(30);

    fn notify(at: &Path, script: &str, limit: Duration) -> Notify {
        let words = ["/bin/sh", "-c", script].map(String::from).to_vec();
        let (node, cluster) = ("node1".into(), "7".into());
        Notify { words, node, cluster, logs: Logs::at(at), limit }
    }

    fn read(at: &Path, name: &str) -> String {
        fs::read_to_string(at.join(name)).unwrap_or_default()
    }

    #[test]
    fn a_command_is_told_of_each_change_in_order_and_what_it_says_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let told = at.join("told");
        let script = format!(
            "echo \"$DUOLOG_FROM $DUOLOG_STATE $DUOLOG_REASON $DUOLOG_NODE $DUOLOG_CLUSTER \
             $DUOLOG_TIME\" >> {}; echo it was told",
            told.display()
        );
        let teller = Teller::of(notify(at, &script, BOUND)).unwrap();
        let (one, two) = (Change::now("WAIT", "PRIM", "a b"), Change::now("PRIM", "STOP", "c;d"));
        let expected =
            format!("WAIT PRIM a b node1 7 {}\nPRIM STOP c;d node1 7 {}\n", one.at, two.at);
        teller.tell(one);
        teller.tell(two);
        teller.finish(BOUND);
        assert_eq!(read(at, "told"), expected);
        own::within(BOUND, || {
            let said = read(at, "application.log");
            let one = "\"service\":\"notify\",\"from\":\"notify\",\"text\":\"it was told\"";
            (said.matches(one).count() == 2).then_some(())
        });
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_all_that_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let pids = at.join("pids");
        let script = format!("sleep 600 & echo $! $$ > {}; sleep 600", pids.display());
        let teller = Teller::of(notify(at, &script, Duration::from_millis(500))).unwrap();
        let begun = Instant::now();
        teller.tell(Change::now("WAIT", "PRIM", ""));
        assert!(begun.elapsed() < Duration::from_millis(400), "whoever tells waits");
        teller.finish(BOUND);
        for pid in read(at, "pids").split_whitespace() {
            let lives = processes::of(Pid::from_raw(pid.parse().unwrap()).unwrap());
            assert_eq!(lives, None, "{pid} lives on");
        }
        assert_eq!(read(at, "pids").split_whitespace().count(), 2);
    }

    #[test]
    fn a_command_that_was_called_off_is_not_waited_for_and_no_other_one_begins() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let told = at.join("told");
        let script = format!("echo told >> {}; exec sleep 600", told.display());
        let teller = Teller::of(notify(at, &script, BOUND)).unwrap();
        teller.tell(Change::now("WAIT", "PRIM", ""));
        teller.tell(Change::now("PRIM", "STOP", ""));
        own::within(BOUND, || told.exists().then_some(()));
        teller.call_off();
        teller.finish(BOUND);
        assert_eq!(read(at, "told"), "told\n");
    }
}
