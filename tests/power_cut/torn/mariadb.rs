//! `MariaDB` with `InnoDB`'s checksums and without its doublewrite buffer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use duolog_tests::mariadb::{Server, check_pages, install, user};

use super::{Bed, ROUNDS, complaint, said};

/// Less memory than there are pages: they are written all the time.
const SMALL: [&str; 4] = [
    "--skip-innodb-doublewrite",
    "--innodb-buffer-pool-size=6M",
    "--innodb-max-dirty-pages-pct=5",
    "--innodb-max-dirty-pages-pct-lwm=1",
];
const SAFE: [&str; 4] = ["--innodb-doublewrite=ON", SMALL[1], SMALL[2], SMALL[3]];
const BUSY_LIMIT: Duration = Duration::from_mins(3);

fn start(bed: &Bed, options: &[&str]) -> Server {
    Server::start_with(&bed.data(), &bed.outside(), options)
}

fn set_up(bed: &mut Bed, options: &[&str]) {
    bed.serve();
    install(&bed.data());
    let server = start(bed, options);
    server.create_promise();
    server.execute(
        "USE duolog; CREATE TABLE duolog.filler (id INT PRIMARY KEY, n INT, body CHAR(250), KEY (n)) \
         ENGINE=InnoDB; INSERT INTO duolog.filler \
         SELECT seq, seq, REPEAT('x', 250) FROM seq_1_to_40000",
    );
    server.stop();
    if let Some(node) = &mut bed.node {
        node.stop();
    }
    bed.disk.settle();
}

/// Work, a power cut in the middle of it, and what is left: every promise is kept and every page is
/// whole.
fn round(bed: &mut Bed, options: &[&str]) {
    bed.serve();
    let server = start(bed, options);
    let writers = server.start_writers(bed.journal.path(), 2);
    let over = AtomicBool::new(false);
    let more = bed.random.between(50, 300);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut turn = 0;
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                let change = format!(
                    "UPDATE duolog.filler SET n = n + 1, body = REPEAT('{}', 250) \
                     WHERE id % 97 = {}",
                    turn % 10,
                    turn % 97
                );
                server.execute(&change);
            }
        });
        bed.journal.wait_for(more, BUSY_LIMIT, || writers.assert_run());
        over.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
    bed.cut(|| server.kill());
    writers.fail();

    bed.serve();
    let server = start(bed, options);
    let rows = server.rows();
    let survived = bed.journal.promises().check(&rows);
    println!("{survived:?}");
    assert!(survived.acknowledged > 0);
    bed.journal.seen(&rows);
    server.check_table("duolog.promise");
    server.check_table("duolog.filler");
    server.stop();
    check_pages(&bed.data());
    if let Some(node) = &mut bed.node {
        node.stop();
    }
}

/// The control.
#[test]
fn innodb_without_doublewrite_has_torn_pages_on_a_plain_disk() {
    let mut bed = Bed::new("torn-mariadb-plain", None, user());
    set_up(&mut bed, &SMALL);
    let complaint = complaint(|| round(&mut bed, &SMALL));
    let complaint = complaint.expect("not one page was torn in so many power cuts");
    println!("{complaint}");
    let all = complaint + &said(&bed.outside().join("mariadb.said"));
    let torn = ["corrupt", "checksum", "page read"];
    assert!(torn.iter().any(|text| all.contains(text)), "it complains of something else: {all}");
}

/// With it, on the same disk: what tears pages is no fault of the harness.
#[test]
fn innodb_with_doublewrite_survives_on_a_plain_disk() {
    let mut bed = Bed::new("whole-mariadb-plain", None, user());
    set_up(&mut bed, &SAFE);
    for _ in 0..ROUNDS {
        round(&mut bed, &SAFE);
    }
}

#[test]
fn innodb_without_doublewrite_has_no_torn_page_on_duolog() {
    let mut bed = Bed::new("torn-mariadb", Some("mariadb"), user());
    set_up(&mut bed, &SMALL);
    for _ in 0..ROUNDS {
        round(&mut bed, &SMALL);
    }
}
