//! Base copies: taken beside apply, carried by `tar` or `cp`, replayed.

use std::path::Path;
use std::process::Command;

use duolog_engine::store::Store;
use duolog_engine::store::base::{self, BaseError};
use duolog_engine::store::compare::{self, Except};

use super::random::{Log, Random};
use super::site::{Site, folder, open};

fn apply(store: &Store, log: &Log, from: usize, to: usize) {
    for number in from..to {
        let (operation, end) = log.operation(number);
        if let Err(error) = store.apply(&operation, end) {
            panic!("record {number}: {error:?} at {operation:?}");
        }
    }
}

fn carry(how: u64, from: &Path, to: &Path) {
    let shown = from.display();
    let status = match how {
        0 => return super::adoption::rename(from, to),
        1 => Command::new("cp").arg("-r").arg(from).arg(to).status(),
        _ => Command::new("sh")
            .arg("-c")
            .arg(format!("mkdir '{0}' && tar -cC '{shown}' . | tar -xC '{0}'", to.display()))
            .status(),
    };
    assert!(status.unwrap().success());
}

#[test]
fn a_base_that_was_copied_beside_apply_and_carried_away_is_replayed_to_the_same_directory() {
    let site = Site::new();
    for seed in 0..45 {
        let mut random = Random::new(9_000 + seed);
        let log = Log::new(&mut random, 80);
        let count = log.len();
        let at = usize::try_from(random.below(count as u64)).unwrap();
        let during = at + usize::try_from(random.below((count - at) as u64 + 1)).unwrap();
        let store = site.open();
        apply(&store, &log, 0, at);
        let manifest = base::manifest(&store, log.cursors[at]).unwrap();
        // Half of it before the copy, so that files are gone and contents are newer.
        let middle = at.midpoint(during);
        apply(&store, &log, at, middle);
        let folder = folder();
        let (taken, carried) = (folder.path().join("taken"), folder.path().join("carried"));
        let (mut last, mut next) = (0, middle);
        base::copy(&store, &manifest, &taken, &mut |done, total| {
            assert!(last < done && done <= total);
            last = done;
            if next < during {
                apply(&store, &log, next, next + 1);
                next += 1;
            }
        })
        .unwrap();
        apply(&store, &log, next, during);
        assert!(matches!(base::load(&taken), Err(BaseError::NotWhole { .. })));
        base::finish(&taken, manifest.clone(), log.cursors[during].lsn).unwrap();
        apply(&store, &log, during, count);
        drop(store);

        // `cp -r` reads what a pipe gives, and needs one that is no file without a writer.
        let how = if has_pipe(&manifest) { [0, 2][as_index(seed % 2)] } else { seed % 3 };
        carry(how, &taken, &carried);
        let installed = base::install(&carried).unwrap();
        assert_eq!(installed.position, log.cursors[at]);
        assert_eq!(installed.manifest.consistent_from, log.cursors[during].lsn.0);
        let store = open(&installed.directories).unwrap();
        assert_eq!(store.strangers(), Vec::<std::path::PathBuf>::new(), "seed {seed}");
        assert_eq!(store.marks(), [log.cursors[at]]);
        // In two runs: the second goes on where the first came to.
        let pause = during + usize::try_from(random.below((count - during) as u64 + 1)).unwrap();
        apply(&store, &log, at, pause);
        let synced = store.sync().unwrap();
        assert_eq!(synced, (pause > at).then_some(log.cursors[pause]));
        base::set_position(&carried, log.cursors[pause]).unwrap();
        drop(store);
        let installed = base::install(&carried).unwrap();
        assert_eq!(installed.position, log.cursors[pause], "installing again changes nothing");
        let store = open(&installed.directories).unwrap();
        apply(&store, &log, pause, count);
        drop(store);
        let differences =
            compare::trees(site.data(), &carried.join("data-0"), Except::default()).unwrap();
        let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert!(differences.is_empty(), "seed {seed}, carried by {how}: {differences:#?}");
        site.empty();
    }
}

fn as_index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn has_pipe(manifest: &base::Manifest) -> bool {
    let files = manifest.directories.iter().flat_map(|directory| &directory.files);
    files.into_iter().any(|file| file.kind == duolog_engine::store::Kind::Fifo)
}

#[test]
fn a_copy_that_is_not_whole_is_refused() {
    let site = Site::new();
    let log = Log::new(&mut Random::new(5), 40);
    let store = site.open();
    apply(&store, &log, 0, log.len());
    let manifest = base::manifest(&store, *log.cursors.last().unwrap()).unwrap();
    let folder = folder();
    let taken = folder.path().join("taken");
    base::copy(&store, &manifest, &taken, &mut |_, _| {}).unwrap();
    assert!(matches!(base::install(&taken), Err(BaseError::NotWhole { .. })));
    let exists = base::copy(&store, &manifest, &taken, &mut |_, _| {});
    assert!(matches!(exists, Err(BaseError::Exists { .. })));

    let name = |change: fn(&mut String)| {
        let mut bad = manifest.clone();
        let file = bad.directories[0].files.iter_mut().find(|file| file.id > 1024).unwrap();
        file.paths.resize(1, String::new());
        change(&mut file.paths[0]);
        base::finish(&taken, bad, duolog_wal::Lsn(0)).unwrap();
        base::install(&taken)
    };
    let out = name(|path| path.insert_str(0, "../"));
    assert!(matches!(out, Err(BaseError::Name { .. })), "{out:?}");
    std::fs::write(taken.join("manifest.json"), "{\"version\": 99}").unwrap();
    assert!(matches!(base::install(&taken), Err(BaseError::Version { found: 99 })));
    std::fs::write(taken.join("manifest.json"), "{\"version\": 1, ").unwrap();
    assert!(matches!(base::install(&taken), Err(BaseError::Damaged { .. })));

    // A regular file did not come along.
    base::finish(&taken, manifest.clone(), duolog_wal::Lsn(0)).unwrap();
    let file = manifest.directories[0]
        .files
        .iter()
        .find(|file| file.kind == duolog_engine::store::Kind::File && !file.paths.is_empty());
    let path = taken.join("data-0").join(&file.unwrap().paths[0]);
    std::fs::remove_file(&path).unwrap();
    let missing = base::install(&taken);
    assert!(
        matches!(&missing, Err(BaseError::Missing { path: named }) if *named == path),
        "{missing:?}"
    );
}
