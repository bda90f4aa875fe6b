//! The control group below which systemd runs the units of this node, and its door.
//!
//! A start that systemd has accepted cannot be taken back without systemd, which may be busy. But
//! whatever a unit runs, it runs in a control group of that unit below the group of its slice: where no
//! group can be made there, nothing of it runs. So the door is two limits of the kernel on the group of
//! the slice (`cgroup.max.depth`, `cgroup.max.descendants`), and closing it is: set them to 0, kill
//! everybody below, and remove every group below. A group is removed only when nobody is in it, and
//! from then on nobody can get in: the kernel does one or the other. A start that comes later fails in
//! systemd (`219/CGROUP`), whoever asked for it. Open it is only while the node starts services or
//! they run.
//!
//! Talks to no systemd, runs no command and waits for no disk: whoever fences does all of this.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::Pid;

use crate::config::Config;
use crate::processes::{self, Process, StillThere};

/// Where systemd mounts the control groups.
const MOUNT: &str = "/sys/fs/cgroup";
/// What is there where systemd runs the computer, `sd_booted(3)`.
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: u64 = 0x6367_7270;
/// The group of systemd itself, below the one that is its root.
const SYSTEMD: &str = "/init.scope";
/// How long to wait for an end before it is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What keeps groups from being made.
const LIMITS: [&str; 2] = ["cgroup.max.depth", "cgroup.max.descendants"];

/// This process fences, or has: it opens no door any more.
static FOR_GOOD: Mutex<bool> = Mutex::new(false);

/// Why units may still run, or cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SliceError {
    /// The computer is run by something else.
    #[error(
        "this computer is not run by systemd, which [[service]] unit needs; write what the unit runs as \
         start = [...]"
    )]
    NoSystemd,
    /// An older hierarchy, or none.
    #[error(
        "{MOUNT} is not a cgroup2 hierarchy, which [[service]] unit needs; boot with \
         systemd.unified_cgroup_hierarchy=1, or write what the unit runs as start = [...]"
    )]
    NoCgroup2,
    /// The kernel is too old.
    #[error(
        "the kernel has no cgroup.kill, which [[service]] unit needs: that came with Linux 5.14; write what \
         the unit runs as start = [...]"
    )]
    NoKill,
    /// The system refused.
    #[error(
        "cannot use the control group {}, which [[service]] unit needs; duolog has to run as root where \
         control groups may be written", path.display()
    )]
    Io {
        /// A group.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody survives SIGKILL.
    #[error("{still}, in units: {}; they wait in the kernel, perhaps for a mount or a disk", names.join(", "))]
    StillThere {
        /// Their names and numbers.
        names: Vec<String>,
        /// How many, and how long was waited.
        still: StillThere,
    },
    /// Everything is being ended.
    #[error("this node is being fenced: no unit is started any more")]
    Fenced,
}

/// The group of the slice of this node's units.
#[derive(Debug)]
pub(crate) struct Slice {
    name: String,
    /// Below [`MOUNT`].
    group: PathBuf,
    /// Whether this process opened it, and did not begin to close it since.
    open: Mutex<bool>,
}

impl Slice {
    /// The one of the node with that configuration; nothing where no service is a unit, and none was
    /// since the computer was started.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let cgroup = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
        let slice = Self::new(config.instance, &Path::new(MOUNT).join(root_of(&cgroup)));
        // The settings may have changed since: what runs in it by those before is ended all the same.
        let was = || slice.was_of(Path::new(SYSTEMD_RUNS), &config.state_dir);
        (config.has_units() || was()).then_some(slice)
    }

    /// Whether the file of the slice says that it is the one of the node with that state directory.
    /// Another node of the same instance, a demo's for one, leaves it alone.
    fn was_of(&self, files: &Path, state_dir: &Path) -> bool {
        let text = fs::read_to_string(files.join(&self.name)).unwrap_or_default();
        let whose = whose(state_dir);
        text.lines().any(|line| line == whose)
    }

    /// Below a group that is the root of systemd's.
    fn new(instance: u16, root: &Path) -> Self {
        // Without a dash, which would put it below another slice, that is stopped by itself.
        let name = format!("duolog{instance}.slice");
        Self { group: root.join(&name), name, open: Mutex::new(false) }
    }

    /// The name that systemd knows it by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a group, as systemd names it, is one of a unit in this slice; where it is then.
    pub(crate) fn holds(&self, control_group: &str) -> Option<PathBuf> {
        let path = Path::new(MOUNT).join(control_group.strip_prefix('/')?);
        (path.starts_with(&self.group) && path != self.group).then_some(path)
    }

    /// Whether units can be run, and ended, on this computer.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn usable(&self) -> Result<(), SliceError> {
        self.usable_with(Path::new(SYSTEMD_RUNS))
    }

    fn usable_with(&self, systemd_runs: &Path) -> Result<(), SliceError> {
        if !systemd_runs.is_dir() {
            return Err(SliceError::NoSystemd);
        }
        let root = self.group.parent().unwrap_or(Path::new(MOUNT));
        if !is_cgroup2(root) {
            return Err(SliceError::NoCgroup2);
        }
        let own = root.join(SYSTEMD.trim_start_matches('/'));
        if !own.is_dir() {
            return Err(SliceError::NoSystemd);
        }
        if !own.join("cgroup.kill").exists() {
            return Err(SliceError::NoKill);
        }
        self.shut()
    }

    /// Lets systemd run units from now on. Nobody may be in it.
    ///
    /// # Errors
    /// This process fences, or the system refused.
    pub(crate) fn open(&self) -> Result<(), SliceError> {
        // Held until it is open: whoever fences closes it after that.
        let for_good = FOR_GOOD.lock().unwrap_or_else(PoisonError::into_inner);
        if *for_good {
            return Err(SliceError::Fenced);
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        make(&self.group).and_then(|()| self.limit("max")).map_err(|error| self.io(error))?;
        *open = true;
        Ok(())
    }

    /// Whether this process opened it, and did not begin to close it since.
    pub(crate) fn is_open(&self) -> bool {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everybody out who is not in, unless it is open: also where somebody took the group away.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn shut(&self) -> Result<(), SliceError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if *open {
            return Ok(());
        }
        make(&self.group).and_then(|()| self.limit("0")).map_err(|error| self.io(error))
    }

    /// Ends every unit of this node by force, and every start that is on its way: nobody is there, and
    /// nobody comes until it is opened. Can be repeated.
    ///
    /// # Errors
    /// Somebody survived SIGKILL for `limit`, or the system refused for so long.
    pub(crate) fn close(&self, limit: Duration) -> Result<(), SliceError> {
        let until = Instant::now() + limit;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_cgroup2(Path::new(MOUNT)) {
            // Nobody could open what is not there.
            return Ok(());
        }
        // Also where somebody survives: it is closed anew before it is opened.
        *open = false;
        loop {
            let tried = make(&self.group)
                .and_then(|()| self.limit("0"))
                .and_then(|()| fs::write(self.group.join("cgroup.kill"), "1"))
                .and_then(|()| Ok(remove_below(&self.group)? && members(&self.group)?.is_empty()));
            let late = Instant::now() >= until;
            match tried {
                Ok(true) => return Ok(()),
                Ok(false) if late => {
                    let left = everybody(&self.group);
                    let names = left.iter().map(processes::name).collect();
                    return Err(SliceError::StillThere {
                        names,
                        still: StillThere { left, limit },
                    });
                }
                // Somebody may just take a group away.
                Err(error) if late => return Err(self.io(error)),
                Ok(false) | Err(_) => {}
            }
            let again = Timespec::try_from(LOOK_AGAIN).unwrap_or_default();
            poll(&mut [], Some(&again)).ok();
        }
    }

    /// As [`Self::close`], and this process opens no door any more.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn close_for_good(&self, limit: Duration) -> Result<(), SliceError> {
        *FOR_GOOD.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.close(limit)
    }

    fn limit(&self, to: &str) -> io::Result<()> {
        LIMITS.iter().try_for_each(|limit| fs::write(self.group.join(limit), to))
    }

    fn io(&self, source: io::Error) -> SliceError {
        SliceError::Io { path: self.group.clone(), source }
    }
}

/// The line of a slice's file that says whose it is.
pub(crate) fn whose(state_dir: &Path) -> String {
    format!("# Of the node in {}", state_dir.display())
}

/// Everybody in a group and below it.
pub(crate) fn everybody(group: &Path) -> Vec<Process> {
    // A group that goes meanwhile has nobody in it.
    let mut all = members(group).unwrap_or_default();
    for below in groups_below(group).unwrap_or_default() {
        all.extend(everybody(&below));
    }
    all
}

/// Kills everybody in a group and below it, until nobody is left; the group may be gone then.
///
/// # Errors
/// Who survived SIGKILL for `limit`.
pub(crate) fn kill_group(group: &Path, limit: Duration) -> Result<(), SliceError> {
    let until = Instant::now() + limit;
    loop {
        let killed = fs::write(group.join("cgroup.kill"), "1");
        let left = everybody(group);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            if let Err(source) = killed {
                return Err(SliceError::Io { path: group.to_owned(), source });
            }
            let names = left.iter().map(processes::name).collect();
            return Err(SliceError::StillThere { names, still: StillThere { left, limit } });
        }
        let again = Timespec::try_from(LOOK_AGAIN).unwrap_or_default();
        poll(&mut [], Some(&again)).ok();
    }
}

/// Where the root of systemd's groups is below the mount, by what `/proc/1/cgroup` says.
fn root_of(cgroup: &str) -> &str {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    own.strip_suffix(SYSTEMD).unwrap_or(own).trim_start_matches('/')
}

fn is_cgroup2(path: &Path) -> bool {
    let kind = rustix::fs::statfs(path).map(|found| u64::try_from(found.f_type).unwrap_or(0));
    kind == Ok(CGROUP2)
}

/// Makes a group that only its owner may make others in, whatever the mask of this process: whoever makes
/// the group of a unit may kill and freeze what runs in it.
fn make(group: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(group) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Those that live in a group, without the groups below.
fn members(group: &Path) -> io::Result<Vec<Process>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let pids = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    Ok(pids.filter_map(processes::of).collect())
}

fn groups_below(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// Removes the groups below that one, the innermost first; whether none is left.
fn remove_below(group: &Path) -> io::Result<bool> {
    let mut none = true;
    for below in groups_below(group)? {
        let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
        match remove_below(&below).map(|none| none && fs::remove_dir(&below).is_ok()) {
            Ok(removed) => none &= removed || !below.exists(),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_systemd_is_and_its_own_group_is_below_it() {
        assert_eq!(root_of("0::/init.scope\n"), "");
        assert_eq!(root_of("1:name=x:/a\n0::/machine/box/init.scope\n"), "machine/box");
        assert_eq!(root_of("0::/\n"), "");
        assert_eq!(root_of(""), "");
    }

    /// The daemon's mask is empty, so that files of SQL servers get the mode that they ask for.
    #[test]
    fn nobody_else_makes_groups_in_the_slice_whatever_the_mask_is() {
        use std::os::unix::fs::PermissionsExt;
        let there = tempfile::tempdir().unwrap();
        rustix::process::umask(rustix::fs::Mode::empty());
        let group = there.path().join("duolog1.slice");
        make(&group).unwrap();
        assert_eq!(fs::metadata(&group).unwrap().permissions().mode() & 0o777, 0o755);
        make(&group).unwrap();
    }

    #[test]
    fn a_computer_without_systemd_or_cgroup2_runs_no_units() {
        let there = tempfile::tempdir().unwrap();
        let slice = Slice::new(1, there.path());
        let why =
            |systemd: &str| slice.usable_with(&there.path().join(systemd)).unwrap_err().to_string();
        let said = why("none");
        assert!(said.contains("not run by systemd") && said.contains("start = ["), "{said}");
        let said = why("");
        assert!(said.contains("not a cgroup2") && said.contains("boot with"), "{said}");
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0, "nothing is made");
    }

    #[test]
    fn a_slice_is_of_the_node_that_its_file_names() {
        let there = tempfile::tempdir().unwrap();
        let slice = Slice::new(1, there.path());
        assert!(!slice.was_of(there.path(), Path::new("/state")), "there is none");
        let text = format!("[Unit]\n{}\n", whose(Path::new("/state")));
        fs::write(there.path().join("duolog1.slice"), text).unwrap();
        assert!(slice.was_of(there.path(), Path::new("/state")));
        assert!(!slice.was_of(there.path(), Path::new("/sta")));
    }

    #[test]
    fn a_group_is_of_the_slice_only_below_it() {
        let slice = Slice::new(2, Path::new("/sys/fs/cgroup/machine"));
        let holds = |group: &str| slice.holds(group).is_some();
        assert!(holds("/machine/duolog2.slice/a.service"));
        for other in ["", "/", "/machine/duolog2.slice", "/machine/duolog21.slice/a.service"] {
            assert!(!holds(other), "{other}");
        }
    }
}
