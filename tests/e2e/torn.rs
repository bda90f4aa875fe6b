//! A server that has nothing of its own against torn pages, on a pair whose nodes lose their power and
//! are killed. What tears pages on these disks is shown by the control in `tests/power_cut/torn`.

use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::Machine;
use duolog_tests::postgresql::check_pages;
use rustix::process::Signal;

use crate::scene::Scene;

/// Next to no cache: pages are written all the time, and synced at checkpoints.
const SERVER: &[&str] = &["full_page_writes=off", "shared_buffers=1MB", "bgwriter_delay=10ms"];

/// Reads every page that tables and indexes have, through the server, which checks its checksum.
fn read_all_pages(cluster: &Cluster) {
    cluster.execute(&[
        "CREATE EXTENSION IF NOT EXISTS amcheck",
        "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
         JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relkind = 'i' \
         AND c.relpersistence = 'p' AND i.indisvalid",
        "DO $$ DECLARE t regclass; n bigint; BEGIN \
         FOR t IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'm') LOOP \
         EXECUTE format('SELECT count(*) FROM %s', t) INTO n; END LOOP; END $$",
    ]);
}

/// Does something to the node that serves, which is told.
type Fault = fn(&mut Cluster, usize);

#[test]
fn no_page_is_torn_on_either_node_whatever_is_cut_or_killed() {
    let settings = Settings { server: SERVER, ..Settings::default() };
    let mut scene = Scene::with("torn", &settings);
    // More pages than the cache holds, all of them changed all the time.
    scene.cluster.execute(&[
        "CREATE TABLE filler AS SELECT i AS id, 0 AS n, repeat('x', 500) AS body \
         FROM generate_series(1, 20000) i",
        "CREATE INDEX filler_n ON filler (n, id)",
        "CHECKPOINT",
    ]);
    let churn = |scene: &Scene| {
        scene.cluster.execute(&["UPDATE filler SET n = n + 1 WHERE id % 7 = 3"]);
    };
    let faults: [(&str, Fault); 4] = [
        ("the node that serves loses its power", |cluster, serving| {
            cluster.node(serving).cut_power();
        }),
        ("the node that follows loses its power", |cluster, serving| {
            cluster.node(3 - serving).cut_power();
        }),
        ("the daemon that serves is killed", |cluster, serving| {
            let node = cluster.node(serving);
            node.signal(node.daemon(), Signal::KILL);
        }),
        ("everything on the host that serves is killed", |cluster, serving| {
            cluster.node(serving).kill();
        }),
    ];
    for (what, fault) in faults {
        churn(&scene);
        scene.fault(what, fault);
        read_all_pages(&scene.cluster);
    }
    churn(&scene);
    scene.outage("both lose their power at once", |cluster, _| {
        cluster.nodes.iter().for_each(Machine::freeze);
        cluster.nodes.iter_mut().for_each(Machine::cut_power);
        cluster.witness.as_mut().unwrap().cut_power();
    });
    read_all_pages(&scene.cluster);
    // Each copy by itself, as a plain directory.
    let cluster = scene.end_and_stop();
    for node in &cluster.nodes {
        node.command(&["leave"]);
        check_pages(&node.directory());
    }
}
