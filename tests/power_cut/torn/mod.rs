//! Pages of SQL servers that have nothing of their own against torn ones: `full_page_writes = off`,
//! no doublewrite buffer. On the plain disk a power cut tears pages, and checksums say so: that is
//! the control, and shows that these tests would notice. In a directory of Duolog on the same disk
//! no page is torn, whatever was cut.

mod mariadb;
mod postgresql;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use duolog_tests::journal::Journal;
use duolog_tests::node::{Common, Node, Role, duolog};
use duolog_tests::power_cut::Disk;
use duolog_tests::process::{User, run};
use duolog_tests::random::{Random, seed};
use duolog_tests::scratch::Scratch;

use crate::servers::LIMIT;

/// Power cuts that lose nothing on Duolog.
const ROUNDS: u32 = 3;
/// Power cuts within which the plain disk must have torn a page: each of them finds some hundred
/// pages that were written and not synced.
const CONTROL_ROUNDS: u32 = 8;
/// Small, so that cuts come between checkpoints of Duolog and in the middle of them.
const LOG: &str = "segment_bytes = 4194304\ncheckpoint_bytes = 8388608\n";

/// A data directory on a disk whose power can be cut, with Duolog in between if it has a preset.
struct Bed {
    disk: Disk,
    node: Option<Node>,
    journal: Journal,
    random: Random,
    scratch: Scratch,
}

impl Bed {
    fn new(name: &str, preset: Option<&str>, user: User) -> Self {
        let scratch = Scratch::new(name);
        let seed = seed();
        let path = |name: &str| scratch.path().join(name);
        let disk = Disk::new(&path("disk"), &path("mnt"), seed);
        fs::create_dir(path("outside")).unwrap();
        user.make_dir(&disk.path().join("data"));
        let node = preset.map(|preset| {
            let said = run(duolog(&["keygen", "--cluster"]), LIMIT);
            let cluster = said.split_whitespace().next_back().unwrap().to_owned();
            let mut node = Node::new(scratch.path(), 1);
            node.put_on(disk.path());
            let other = Node::new(scratch.path(), 2);
            let common = Common { cluster, log: LOG.into() };
            node.configure(&common, &Role::Alone, &other, &[("data", preset)]);
            node.command(&["adopt"]);
            node
        });
        disk.settle();
        let journal = Journal::create(&path("journal"), seed);
        Self { disk, node, journal, random: Random::new(seed), scratch }
    }

    /// The data directory, as the server finds it.
    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn outside(&self) -> PathBuf {
        self.scratch.path().join("outside")
    }

    /// Begins to serve the data directory.
    fn serve(&mut self) {
        if let Some(node) = &mut self.node {
            node.start();
            node.wait_alone();
        }
    }

    /// Cuts the power while `server` is killed, which may hang in the disk.
    fn cut(&mut self, kill: impl FnOnce() + Send) {
        self.disk.freeze();
        let (disk, node) = (&mut self.disk, &mut self.node);
        thread::scope(|scope| {
            let killer = scope.spawn(|| {
                // What serves goes first, as it does in a power cut.
                if let Some(node) = node {
                    node.kill();
                }
                kill();
            });
            disk.cut_power();
            killer.join().unwrap();
        });
        self.disk.power_on();
    }
}

/// Runs `rounds` with a power cut each until one of them complains.
fn complaint(mut round: impl FnMut()) -> Option<String> {
    (0..CONTROL_ROUNDS).find_map(|_| {
        let found = catch_unwind(AssertUnwindSafe(&mut round));
        let payload = found.err()?;
        let text = payload.downcast_ref::<String>().cloned();
        Some(text.or(payload.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default())
    })
}

/// All that files named `said` hold below a directory.
fn said(path: &Path) -> String {
    fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}
