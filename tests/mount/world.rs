//! One user of the mount: does everything twice, in the mount and in a model directory beside
//! it, and compares each result. Every user has a directory of its own, so that what many do at
//! the same time can be compared.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use duolog_engine::store::compare::{self, Except, What};
use duolog_tests::random::Random;
use rustix::io::Errno;

use crate::operation::{Choice, Operation, choose};
use crate::side::{Outcome, Side};

/// Most pieces of one write.
const PARTS: usize = 4;
/// Operations that are told when one goes wrong.
const BEFORE: usize = 40;

/// A user.
#[derive(Debug)]
pub(crate) struct World {
    name: String,
    seed: u64,
    random: Random,
    mount: Side,
    model: Side,
    steps: u64,
    /// The last few operations, for people.
    before: VecDeque<(Operation, bool)>,
    /// The last operation, if the mount died under it: nobody knows whether it was done.
    interrupted: Option<(Operation, bool)>,
    /// What the model was after each step since the last fsync of something just written.
    pub(crate) states: Option<Vec<u64>>,
}

impl World {
    /// The user of that number, with a directory in each of the two.
    pub(crate) fn new(number: u64, seed: u64, mount: &Path, model: &Path) -> Self {
        let name = format!("user{number}");
        let side = |root: &Path| {
            let root = root.join(&name);
            fs::create_dir(&root).unwrap();
            Side::new(&root)
        };
        let random = Random::new(seed.wrapping_mul(1000) + number);
        let (mount, model) = (side(mount), side(model));
        Self {
            name,
            seed,
            random,
            mount,
            model,
            steps: 0,
            before: VecDeque::new(),
            interrupted: None,
            states: None,
        }
    }

    /// Does `steps` operations, each counted in `all`; fewer when the mount dies.
    pub(crate) fn run(&mut self, steps: u64, choice: Choice, all: &AtomicU64) {
        for _ in 0..steps {
            let (operation, as_user) = choose(&mut self.random, choice);
            for part in self.parts(&operation) {
                if !self.step(part, as_user) {
                    return;
                }
            }
            // The log is one: an fsync of what was just written covers all that came before.
            if let Operation::Write { slot, .. } | Operation::WriteAt { slot, .. } = operation
                && self.states.is_some()
                && self.random.once_in(3)
            {
                let sync = Operation::Sync { slot, data: self.random.once_in(2) };
                let written = self.model.is_writable(slot);
                if !self.step(sync, false) {
                    return;
                }
                if written && let Some(states) = &mut self.states {
                    states.drain(..states.len() - 1);
                }
            }
            all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What to do for an operation: where each state counts, what the kernel would send in pieces
    /// is done in pieces.
    fn parts(&self, operation: &Operation) -> Vec<Operation> {
        if self.states.is_none() {
            return vec![operation.clone()];
        }
        let mut parts = self.model.parts(operation);
        parts.truncate(PARTS);
        parts
    }

    /// One operation on both sides; false when the mount died under it.
    fn step(&mut self, operation: Operation, as_user: bool) -> bool {
        self.steps += 1;
        let mount = self.mount.perform(&operation, as_user);
        if mount.as_ref().is_err_and(|error| self.is_dead(*error)) {
            self.interrupted = Some((operation, as_user));
            return false;
        }
        let model = self.model.perform(&operation, as_user);
        if mount != model {
            let (seed, name, step) = (self.seed, &self.name, self.steps);
            let by = if as_user { " as a user" } else { "" };
            let (mount, model) = (shown(&mount), shown(&model));
            let before = &self.before;
            panic!(
                "seed {seed} {name} step {step}: {operation:?}{by}: mount {mount}, model {model}; \
                 before: {before:#?}"
            );
        }
        self.before.push_back((operation, as_user));
        if self.before.len() > BEFORE {
            self.before.pop_front();
        }
        self.note_state();
        true
    }

    /// Whether an error says that the mount is no more.
    fn is_dead(&self, error: Errno) -> bool {
        const FUSE: i64 = 0x6573_5546;
        // Asked of the file system itself, which nothing caches; gone, another one is there.
        let root = self.mount.root().parent().unwrap();
        matches!(error, Errno::NOTCONN | Errno::CONNABORTED)
            || rustix::fs::statfs(root).map_or(true, |stat| stat.f_type != FUSE)
    }

    fn note_state(&mut self) {
        if let Some(states) = &mut self.states {
            states.push(state(self.model.root()));
        }
    }

    /// From here on notes what the model was after each step.
    pub(crate) fn note_states(&mut self) {
        self.states = Some(vec![state(self.model.root())]);
    }

    /// After the mount died: what it may be now, at least as much as was fsynced.
    pub(crate) fn possible_states(&mut self) -> Vec<u64> {
        if let Some((operation, as_user)) = self.interrupted.take() {
            for part in self.model.parts(&operation) {
                // Alone on its side, so what it gives does not matter.
                self.model.perform(&part, as_user).ok();
                self.note_state();
            }
        }
        self.close();
        self.states.take().unwrap()
    }

    /// Closes all files.
    pub(crate) fn close(&mut self) {
        self.mount.close();
        self.model.close();
    }

    /// After the mount died and came again: it is what it was, with the interrupted operation
    /// or without.
    pub(crate) fn resolve(&mut self) {
        self.mount.close();
        let mut differences = self.differences(self.mount.root());
        if let Some((operation, as_user)) = self.interrupted.take()
            && !differences.is_empty()
        {
            let without = differences.clone();
            for part in self.model.parts(&operation) {
                self.model.perform(&part, as_user).ok();
                differences = self.differences(self.mount.root());
                if differences.is_empty() {
                    break;
                }
            }
            assert!(
                differences.is_empty(),
                "seed {} {} step {}: {operation:?} was interrupted; without it {without:#?}; with \
                 it {differences:#?}",
                self.seed,
                self.name,
                self.steps
            );
        }
        self.assert_none(&differences, "after a crash");
        self.model.close();
    }

    /// The mount serves at another path now.
    pub(crate) fn move_to(&mut self, mount: &Path) {
        self.mount = Side::new(&mount.join(&self.name));
    }

    /// The directory of this user in `backing` is what the model is.
    pub(crate) fn assert_equal(&self, backing: &Path) {
        let differences = self.differences(&backing.join(&self.name));
        self.assert_none(&differences, "in the backing directory");
    }

    fn assert_none(&self, differences: &[String], what: &str) {
        let (seed, name, steps) = (self.seed, &self.name, self.steps);
        assert!(differences.is_empty(), "seed {seed} {name} step {steps} {what}: {differences:#?}");
    }

    /// What differs between the model (first) and a directory, times aside.
    fn differences(&self, other: &Path) -> Vec<String> {
        let found = compare::trees(self.model.root(), other, Except::default());
        let found = found.unwrap_or_else(|(path, error)| panic!("{}: {error}", path.display()));
        let is_time =
            |what: &What| matches!(what, What::Attribute { name, .. } if *name == "the time");
        found.iter().filter(|it| !is_time(&it.what)).map(ToString::to_string).collect()
    }

    /// The user's name, which its directory has.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Err(error) => format!("{error:?}"),
        Ok(bytes) if bytes.len() < 300 => format!("{:?}", String::from_utf8_lossy(bytes)),
        Ok(bytes) => {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            let zero = bytes.iter().position(|byte| *byte == 0);
            format!("{} bytes, hash {:x}, first zero {zero:?}", bytes.len(), hasher.finish())
        }
    }
}

/// A number for all that a directory holds, times aside.
pub(crate) fn state(root: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut inodes: BTreeMap<u64, usize> = BTreeMap::new();
    for path in paths(root) {
        let meta = path.symlink_metadata().unwrap();
        path.strip_prefix(root).unwrap().hash(&mut hasher);
        (meta.mode(), meta.uid(), meta.gid(), meta.rdev()).hash(&mut hasher);
        let count = inodes.len();
        inodes.entry(meta.ino()).or_insert(count).hash(&mut hasher);
        if meta.is_symlink() {
            fs::read_link(&path).unwrap().hash(&mut hasher);
        } else if meta.is_file() {
            fs::read(&path).unwrap().hash(&mut hasher);
        }
        xattrs(&path).hash(&mut hasher);
    }
    hasher.finish()
}

/// All paths below, and the directory itself first.
pub(crate) fn paths(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        if path.symlink_metadata().unwrap().is_dir() {
            let entries: io::Result<Vec<_>> = fs::read_dir(&path).unwrap().collect();
            all.extend(entries.unwrap().into_iter().map(|entry| entry.path()));
        }
    }
    all.sort();
    all
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let mut all = Vec::new();
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = str::from_utf8(name).unwrap().to_owned();
        // Duolog's own, where a backing directory is looked at.
        if name == "trusted.duolog" || name.starts_with("trusted.duolog.") {
            continue;
        }
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, &name[..], &mut value[..]).unwrap();
        value.truncate(len);
        all.push((name, value));
    }
    all.sort();
    all
}
