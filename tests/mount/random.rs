//! Random operations, and a clean stop: both nodes hold what the model holds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use duolog_tests::pair::Pair;

use crate::operation::Choice;
use crate::world::{World, paths};
use crate::{DATA, assert_nodes_equal, backing, seeds};

pub(crate) const USERS: u64 = 3;
const STEPS: u64 = 1500;

/// Users at work at the same time, who find nothing that a plain directory would not have shown.
pub(crate) fn work(worlds: &mut [World], steps: u64, choice: Choice) {
    let all = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for world in worlds {
            let all = &all;
            scope.spawn(move || world.run(steps, choice, all));
        }
    });
}

/// The time of each file, as it is shown.
fn times(root: &Path) -> BTreeMap<PathBuf, (i64, i64)> {
    let root = &root.canonicalize().unwrap();
    let time = |path: PathBuf| {
        let meta = path.symlink_metadata().unwrap();
        (path.strip_prefix(root).unwrap().to_owned(), (meta.mtime(), meta.mtime_nsec()))
    };
    paths(root).into_iter().map(time).collect()
}

#[test]
fn random_operations_give_what_a_plain_directory_gives_and_both_nodes_have_them() {
    for seed in seeds(2) {
        let mut pair = Pair::start("random", &[DATA]);
        let model = pair.outside().join("model");
        fs::create_dir(&model).unwrap();
        let mount = pair.site("data");
        let mut worlds: Vec<_> =
            (0..USERS).map(|number| World::new(number, seed, &mount, &model)).collect();
        for round in 0..2 {
            work(&mut worlds, STEPS, Choice::All);
            worlds.iter_mut().for_each(World::close);
            let shown = times(&mount);
            pair.stop();
            let (one, two) = (backing(&pair, 1), backing(&pair, 2));
            assert_nodes_equal(&one, &two, seed);
            for world in &worlds {
                world.assert_equal(&one);
            }
            assert_eq!(times(&one), shown, "seed {seed}: times shown before the stop");
            if round == 0 {
                // The other node goes on with what this one has.
                pair.swap();
                for world in &mut worlds {
                    world.move_to(&mount);
                }
            }
        }
    }
}
