//! Processes below one of ours, as `/proc` shows them, and their end. Works through process
//! groups, sessions and double forks: whoever is orphaned below a subreaper stays below it. Reads
//! nothing that waits for the memory of another process, which may hang.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long to wait for an end before `/proc` is read again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process at one moment. Its number may go to another; number and start do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// Its number.
    pub pid: Pid,
    /// When it began, in ticks since the boot.
    pub started: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    process: Process,
    parent: i32,
    group: i32,
    /// Dead; only its parent has not asked yet.
    ended: bool,
}

/// Nobody could be ended in time.
#[derive(Debug, thiserror::Error)]
#[error("{} {} after SIGKILL for {limit:?}", .left.len(), if .left.len() == 1 { "process still lives" } else { "processes still live" })]
pub(crate) struct StillThere {
    /// Who is left.
    pub left: Vec<Process>,
    /// How long was waited.
    pub limit: Duration,
}

/// All living processes below `root`, without itself.
pub(crate) fn below(root: Pid) -> io::Result<Vec<Process>> {
    Ok(below_in(&all()?, &[number(root)]))
}

/// The living children of `root`, and those of them that are dead and wait to be asked for.
pub(crate) fn children(root: Pid) -> io::Result<(Vec<Process>, Vec<Process>)> {
    let root = number(root);
    let children = all()?.into_iter().filter(|stat| stat.parent == root);
    let (ended, living): (Vec<_>, Vec<_>) = children.partition(|stat| stat.ended);
    let process = |stats: Vec<Stat>| stats.into_iter().map(|stat| stat.process).collect();
    Ok((process(living), process(ended)))
}

/// Those of `of` that live, with all below them and all in the process groups that they led.
/// Only of what is below `root`: the number of a group that is empty may go to strangers.
pub(crate) fn families(root: Pid, of: &[Process]) -> io::Result<Vec<Process>> {
    let all = all()?;
    let below = below_in(&all, &[number(root)]);
    Ok(family_in(&all, below, of))
}

fn family_in(all: &[Stat], below: Vec<Process>, of: &[Process]) -> Vec<Process> {
    let leads = |stat: &&Stat| {
        of.iter().any(|process| number(process.pid) == stat.group || *process == stat.process)
    };
    let heads: Vec<_> = all.iter().filter(leads).map(|stat| number(stat.process.pid)).collect();
    let under = below_in(all, &heads);
    let mut found = below;
    found.retain(|process| heads.contains(&number(process.pid)) || under.contains(process));
    found
}

/// All living processes below `root` but the family of `of`.
pub(crate) fn outside(root: Pid, of: &[Process]) -> io::Result<Vec<Process>> {
    Ok(sorted(root, &[of.to_vec()])?.1)
}

/// The family of each of `of`, as [`families`] has it, and who below `root` is in none of them:
/// all of one moment.
pub(crate) fn sorted(
    root: Pid,
    of: &[Vec<Process>],
) -> io::Result<(Vec<Vec<Process>>, Vec<Process>)> {
    let all = all()?;
    let mut others = below_in(&all, &[number(root)]);
    let family = |of: &Vec<Process>| family_in(&all, others.clone(), of);
    let families: Vec<_> = of.iter().map(family).collect();
    others.retain(|process| !families.iter().flatten().any(|known| known == process));
    Ok((families, others))
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

fn below_in(all: &[Stat], roots: &[i32]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Stat>> = HashMap::new();
    for stat in all {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut below = Vec::new();
    let mut next: Vec<i32> = roots.to_vec();
    while let Some(parent) = next.pop() {
        for stat in children.remove(&parent).unwrap_or_default() {
            next.push(number(stat.process.pid));
            if !stat.ended {
                below.push(stat.process);
            }
        }
    }
    below
}

/// Sends SIGKILL to everyone that `who` finds until it finds nobody, twice in a row: somebody
/// may be born while `/proc` is read.
pub(crate) fn kill(
    limit: Duration,
    mut who: impl FnMut() -> io::Result<Vec<Process>>,
) -> io::Result<Result<(), StillThere>> {
    let deadline = Instant::now() + limit;
    let mut empty = 0;
    loop {
        let left = who()?;
        if left.is_empty() {
            empty += 1;
            if empty == 2 {
                return Ok(Ok(()));
            }
            continue;
        }
        empty = 0;
        let handles: Vec<_> = left.iter().filter_map(handle).collect();
        for handle in &handles {
            // Ended in between: as good as killed.
            pidfd_send_signal(handle, Signal::KILL).ok();
        }
        if Instant::now() >= deadline {
            return Ok(Err(StillThere { left, limit }));
        }
        wait_for_one(&handles, LOOK_AGAIN)?;
    }
}

/// A handle on the process, unless its number belongs to another one by now.
pub(crate) fn handle(process: &Process) -> Option<OwnedFd> {
    let handle = pidfd_open(process.pid, PidfdFlags::empty()).ok()?;
    // The number cannot go to another process while the handle was open, if it had not before.
    (stat(process.pid)?.process == *process).then_some(handle)
}

/// Waits until one of the processes ends, at most `limit`.
fn wait_for_one(handles: &[OwnedFd], limit: Duration) -> io::Result<()> {
    let mut ends: Vec<_> = handles.iter().map(|end| PollFd::new(end, PollFlags::IN)).collect();
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut ends, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The process with that number, unless there is none or it is dead.
pub(crate) fn of(pid: Pid) -> Option<Process> {
    stat(pid).filter(|stat| !stat.ended).map(|stat| stat.process)
}

/// The process with that number, dead or not, unless there is none.
pub(crate) fn even_dead(pid: Pid) -> Option<Process> {
    stat(pid).map(|stat| stat.process)
}

/// The name of a process's program, for messages.
pub(crate) fn name(process: &Process) -> String {
    let pid = process.pid.as_raw_nonzero();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", name.trim_end())
}

fn all() -> io::Result<Vec<Stat>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // What ended meanwhile is not among them.
        all.extend(pid.and_then(stat));
    }
    Ok(all)
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse(pid, &String::from_utf8_lossy(&text))
}

/// `pid (name) state parent group session ...`, where the name may hold anything.
fn parse(pid: Pid, text: &str) -> Option<Stat> {
    let fields: Vec<_> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<i64>().ok();
    let threads = field(17)?;
    Some(Stat {
        process: Process { pid, started: fields.get(19)?.parse().ok()? },
        parent: i32::try_from(field(1)?).ok()?,
        group: i32::try_from(field(2)?).ok()?,
        // A first thread that ended looks the same while others of its process live.
        ended: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
    })
}

#[cfg(test)]
pub(crate) mod own;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, set_child_subreaper};
    use std::process::{Command, Stdio};

    const BOUND: Duration = Duration::from_mins(1);

    #[test]
    fn a_name_may_hold_what_looks_like_fields() {
        let pid = Pid::INIT;
        let line = "1 (a) R 7 (x) S 12 13 14 0 -1 4 1 2 3 4 5 6 7 8 20 0 3 0 4242 9 9";
        let stat = parse(pid, line).unwrap();
        assert_eq!((stat.parent, stat.group, stat.ended), (12, 13, false));
        assert_eq!(stat.process, Process { pid, started: 4242 });
        let dead = line.replacen(" S ", " Z ", 1);
        assert!(!parse(pid, &dead).unwrap().ended, "its other threads live");
        assert!(parse(pid, &dead.replacen(" 0 3 0 ", " 0 1 0 ", 1)).unwrap().ended);
    }

    /// The shell, its child, and its grandchild, which has left the group.
    #[test]
    fn a_family_is_killed_with_those_who_left_the_group() {
        own::process("processes::tests::a_family_is_killed_with_those_who_left_the_group", || {
            set_child_subreaper(Some(getpid())).unwrap();
            let script = "setsid sh -c 'trap \"\" TERM; sleep 600 & wait' & trap '' TERM; wait";
            let mut child =
                Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
            let root = of(Pid::from_child(&child)).unwrap();
            let family = own::within(BOUND, || {
                let family = families(getpid(), &[root]).unwrap();
                (family.len() == 3).then_some(family)
            });
            kill(BOUND, || families(getpid(), &family)).unwrap().unwrap();
            child.wait().unwrap();
            assert!(family.iter().all(|process| of(process.pid) != Some(*process)));
            assert_eq!(below(getpid()).unwrap(), []);
        });
    }

    /// A handle is never one on a process that was given the number later.
    #[test]
    fn a_number_that_went_to_another_process_is_not_signalled() {
        let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let process = of(Pid::from_child(&child)).unwrap();
        let other = Process { started: process.started + 1, ..process };
        assert!(handle(&other).is_none());
        assert!(handle(&process).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
