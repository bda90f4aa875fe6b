//! A pair under load, one fault after the other. Clients write all the while; after each fault what
//! the server shows is compared with what they were promised.

use std::time::Duration;

use duolog_tests::hosts::clients::{Clients, changes};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::journal::{Moment, now_us};
use duolog_tests::random::seed;
use duolog_tests::wait;

/// How many clients write.
const CLIENTS: u32 = 4;
/// What a fault in the middle of something needs: commits before it.
const WARM_LIMIT: Duration = Duration::from_mins(3);

/// How long a server that may not be there is asked for what it shows.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) clients: Clients,
    /// Takeovers and swaps that there may have been at the most.
    changes_max: u64,
}

impl Scene {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, &Settings::default())
    }

    pub(crate) fn with(name: &str, settings: &Settings) -> Self {
        let cluster = Cluster::start(name, seed(), settings);
        let clients = cluster.start_clients(CLIENTS);
        let scene = Self { cluster, clients, changes_max: 0 };
        scene.warm("before anything");
        scene
    }

    /// Waits until clients are served.
    fn warm(&self, when: &str) {
        let served = self.clients.wait_for_commit(WARM_LIMIT);
        assert!(served.is_some(), "{when}: no commit:\n{}", self.cluster.states());
    }

    /// A fault that may cost up to one takeover: clients are served again while it lasts. It is
    /// told which node served, 1 or 2. Afterwards all is mended and the pair is whole again.
    pub(crate) fn fault(&mut self, what: &str, fault: impl FnOnce(&mut Cluster, usize)) {
        self.fault_and(what, fault, |_| {});
    }

    /// The same, with what has to be so before it is mended.
    pub(crate) fn fault_and(
        &mut self,
        what: &str,
        fault: impl FnOnce(&mut Cluster, usize),
        then: impl FnOnce(&mut Self),
    ) {
        let serving = self.cluster.make_whole();
        self.warm(what);
        println!("{what}, node{serving} serves");
        fault(&mut self.cluster, serving);
        self.goes_on(what);
        then(self);
        self.mend(what);
    }

    /// A fault after which nobody may be served before it is mended.
    pub(crate) fn outage(&mut self, what: &str, fault: impl FnOnce(&mut Cluster, usize)) {
        let serving = self.cluster.make_whole();
        self.warm(what);
        println!("{what}, node{serving} serves");
        fault(&mut self.cluster, serving);
        self.mend(what);
    }

    pub(crate) fn goes_on(&self, what: &str) {
        let served = self.clients.wait_for_commit(LIMIT);
        assert!(served.is_some(), "{what}: nobody is served:\n{}", self.cluster.states());
    }

    /// What was acknowledged is there for whoever reads, where a server answers at all.
    pub(crate) fn reads(&self) {
        let not_before_us = now_us();
        let rows = wait::within(READ_LIMIT, || self.cluster.try_rows());
        let moment = Moment { not_before_us, not_after_us: now_us() };
        match rows {
            Some(rows) => {
                println!("{:?}", self.cluster.journal().promises().check_at(&rows, moment));
            }
            None => println!("nobody serves"),
        }
    }

    /// All is mended, and the pair is whole again.
    pub(crate) fn mended(&mut self, what: &str) {
        self.mend(what);
    }

    /// Nobody went on alone, was started anew or took over.
    pub(crate) fn nobody_was_promoted(&self) {
        let receipts = self.cluster.receipts();
        let promoted = receipts.iter().find(|it| it.event == "promoted");
        assert!(promoted.is_none(), "{promoted:?}");
    }

    fn mend(&mut self, what: &str) {
        self.cluster.make_whole();
        self.goes_on(what);
        let survived = self.cluster.check_now();
        println!("{what}: {survived:?}");
        // One for the fault, and one that a busy machine brought about.
        self.changes_max += 4;
    }

    /// The end after so many takeovers, at the most, that were no [`Self::fault`].
    pub(crate) fn end_after(mut self, changes: u64) {
        self.changes_max += changes;
        self.end();
    }

    /// The end: everything promised is there, and nodes took turns only as often as there were
    /// reasons to.
    pub(crate) fn end(self) {
        drop(self.ended());
    }

    /// The same; then both nodes are stopped, one after the other has taken over from it: so the
    /// server has ended in order on both.
    pub(crate) fn end_and_stop(self) -> Cluster {
        let mut cluster = self.ended();
        let serving = cluster.wait_pair();
        cluster.node(serving).stop();
        assert_eq!(cluster.wait_serving(), 3 - serving);
        cluster.node(3 - serving).stop();
        cluster
    }

    fn ended(self) -> Cluster {
        let served = self.clients.stop();
        self.cluster.wait_pair();
        let survived = self.cluster.check();
        println!("{survived:?}");
        assert!(survived.acknowledged > 0);
        let changes = changes(&served);
        assert!(changes <= self.changes_max, "{changes} times another node acknowledged");
        self.cluster
    }
}
