//! Kernels that offer less: with optional features of FUSE masked the mount is slower, and just
//! as right.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use duolog_tests::joined::Joined;
use duolog_tests::random::Random;
use duolog_tests::scratch::Scratch;
use rusqlite::Connection;

use crate::operation::Choice;
use crate::random::{USERS, work};
use crate::world::World;
use crate::{assert_nodes_equal, seeds};

const STEPS: u64 = 700;

fn random_operations_with(mask: u64, seed: u64) {
    println!("seed {seed}: masked {mask:#x}");
    let scratch = Scratch::new("masked");
    let joined = Joined::start(scratch.path(), &["--mask", &mask.to_string()]);
    let model = scratch.path().join("model");
    fs::create_dir(&model).unwrap();
    let mount = joined.mount();
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o755)).unwrap();
    let mut worlds: Vec<_> =
        (0..USERS).map(|number| World::new(number, seed, &mount, &model)).collect();
    work(&mut worlds, STEPS, Choice::WithoutAcls);
    worlds.iter_mut().for_each(World::close);
    let [one, two] = joined.backing();
    joined.stop();
    assert_nodes_equal(&one, &two, seed);
    for world in &worlds {
        world.assert_equal(&one);
    }
}

#[test]
fn random_operations_are_right_on_a_kernel_without_any_optional_feature() {
    for seed in seeds(1) {
        random_operations_with(u64::MAX, seed);
    }
}

#[test]
fn random_operations_are_right_on_a_kernel_with_some_optional_features() {
    for seed in seeds(2) {
        random_operations_with(Random::new(seed).bits(), seed);
    }
}

/// What a SQL server does all day: locks, writes in place, journals that are made, renamed,
/// truncated and removed, shared memory, fsyncs of files and directories.
#[test]
fn a_sql_server_works_on_a_kernel_without_any_optional_feature() {
    let scratch = Scratch::new("masked-sql");
    let joined = Joined::start(scratch.path(), &["--mask", &u64::MAX.to_string()]);
    let rows: i64 = 60;
    let modes = ["DELETE", "TRUNCATE", "PERSIST", "WAL"];
    for mode in modes {
        let path = joined.mount().join(format!("{mode}.db"));
        let open = || {
            let db = Connection::open(&path).unwrap();
            db.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
            db.pragma_update(None, "journal_mode", mode).unwrap();
            db.pragma_update(None, "synchronous", "FULL").unwrap();
            db
        };
        open().execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
        std::thread::scope(|scope| {
            for writer in 0..2 {
                scope.spawn(move || {
                    let db = open();
                    for row in 0..rows {
                        let text = "x".repeat(usize::try_from(row * 97).unwrap());
                        let id = row * 2 + writer;
                        db.execute("INSERT INTO t VALUES (?1, ?2)", (id, text)).unwrap();
                    }
                });
            }
        });
        let db = open();
        db.execute_batch("DELETE FROM t WHERE id % 3 = 0; VACUUM").unwrap();
    }
    let [_, two] = joined.backing();
    joined.stop();
    for mode in modes {
        let db = Connection::open(two.join(format!("{mode}.db"))).unwrap();
        let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{mode}");
        let count: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, rows * 2 * 2 / 3, "{mode}");
    }
}
