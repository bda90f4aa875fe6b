//! Clients of the pair on their own host: each commits rows on whichever node takes them, notes in
//! the journal what it was promised, and remembers which node promised it and when.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use postgres::{Client, NoTls};

use super::cluster::Cluster;
use super::lan::{Lan, Segment, Who, address};
use crate::journal::Journal;
use crate::postgresql::{INSERT, with_cause, write_one};
use crate::wait;

/// How long a client waits for an answer of a host before it tries the other one.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long a client may need to end: a commit that hangs ends with its server.
const END_LIMIT: Duration = Duration::from_mins(1);
/// How long a server may take for the shortest question.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How soon a client that was refused tries again: each try costs a server that starts a process.
const PAUSE: Duration = Duration::from_millis(25);

/// A commit that a node acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which node, 1 or 2.
    pub node: usize,
    /// When the transaction began, microseconds since 1970.
    pub begun_us: u64,
    /// When the client was told.
    pub acknowledged_us: u64,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    served: Arc<Mutex<Vec<Served>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

/// A session on node 1 or 2, for a thread at the client's place.
///
/// # Errors
/// The server does not run there, or not yet, or the host does not answer.
pub fn connect(node: usize, database: &str) -> Result<Client, postgres::Error> {
    connect_to(&address(Who::node(node), Segment::A), database)
}

/// A session with whoever has that address, for a thread at the client's place.
///
/// # Errors
/// As of [`connect`].
pub fn connect_to(host: &str, database: &str) -> Result<Client, postgres::Error> {
    let mut config = postgres::Config::new();
    config.host(host).user("postgres").dbname(database);
    // A host that is gone says nothing: the kernel has to ask.
    config.keepalives(true).keepalives_idle(CONNECT_LIMIT).keepalives_interval(CONNECT_LIMIT);
    config.keepalives_retries(3).tcp_user_timeout(3 * CONNECT_LIMIT);
    config.connect_timeout(CONNECT_LIMIT).connect(NoTls)
}

/// Whether the server of node 1 or 2 takes a client and answers it, in reasonable time.
///
/// # Errors
/// Why not, in words.
pub fn takes_clients(client: &File, node: usize) -> Result<(), String> {
    let (say, said) = channel();
    let client = client.try_clone().unwrap();
    // Not waited for: a server that hangs takes the connection and says nothing, until it ends.
    spawn(move || {
        Lan::enter_as_client(&client);
        let asked = connect(node, "postgres").and_then(|mut it| it.batch_execute("SELECT 1"));
        say.send(asked.map_err(|error| with_cause(&error))).ok();
    });
    said.recv_timeout(ANSWER_LIMIT).unwrap_or_else(|_| Err("it does not answer".into()))
}

/// Runs `what` at the client's place on the network.
///
/// # Panics
/// When it does.
pub fn at_client<T: Send>(client: &File, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            Lan::enter_as_client(client);
            what()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Clients {
    /// Starts `count` of them; each rests for `pause` after each of its transactions.
    pub fn start(client: &File, journal: &Path, count: u32, pause: Duration) -> Self {
        let places = [1, 2].map(|node| address(Who::node(node), Segment::A));
        Self::start_at(client, journal, count, pause, &places)
    }

    /// The same, of clients that know other addresses than those of the nodes; what they are told
    /// counts as told by the number of the address, from 1.
    pub fn start_at(
        client: &File,
        journal: &Path,
        count: u32,
        pause: Duration,
        places: &[String],
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(Mutex::new(Vec::new()));
        let errors = Arc::new(Mutex::new(Vec::new()));
        let start = |writer| {
            let (journal, client) = (Journal::open(journal), client.try_clone().unwrap());
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let errors = Arc::clone(&errors);
            let places = places.to_vec();
            spawn(move || {
                Lan::enter_as_client(&client);
                run(&journal, writer, &places, pause, &stop, &served, &errors);
            })
        };
        let threads = (1..=count).map(start).collect();
        Self { threads, stop, served, errors }
    }

    /// What transactions failed with since this was asked last, in words.
    pub fn errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap())
    }

    /// What was acknowledged so far, in the order in which clients were told.
    pub fn served(&self) -> Vec<Served> {
        let mut served = self.served.lock().unwrap().clone();
        served.sort_by_key(|it| it.acknowledged_us);
        served
    }

    /// Waits until a commit that began from now on was acknowledged; by which node.
    pub fn wait_for_commit(&self, limit: Duration) -> Option<Served> {
        let now = crate::journal::now_us();
        wait::within(limit, || {
            let served = self.served.lock().unwrap();
            served.iter().rev().take(100).find(|it| it.begun_us >= now).copied()
        })
    }

    /// Waits until node 1 or 2 has acknowledged a commit that began from now on.
    pub fn wait_for_commit_on(&self, node: usize, limit: Duration) -> Option<Served> {
        let now = crate::journal::now_us();
        wait::within(limit, || {
            let served = self.served.lock().unwrap();
            let mut latest = served.iter().rev().take(100);
            latest.find(|it| it.node == node && it.begun_us >= now).copied()
        })
    }

    /// Lets each end its transaction; returns what was acknowledged.
    ///
    /// # Panics
    /// When one of them hangs.
    pub fn stop(self) -> Vec<Served> {
        self.stop.store(true, Ordering::Relaxed);
        let served = Arc::clone(&self.served);
        let ended = wait::within(END_LIMIT, || {
            self.threads.iter().all(JoinHandle::is_finished).then_some(())
        });
        assert!(ended.is_some(), "a client hangs");
        for thread in self.threads {
            thread.join().unwrap();
        }
        let mut served = std::mem::take(&mut *served.lock().unwrap());
        served.sort_by_key(|it| it.acknowledged_us);
        served
    }
}

fn run(
    journal: &Journal,
    writer: u32,
    places: &[String],
    pause: Duration,
    stop: &AtomicBool,
    served: &Mutex<Vec<Served>>,
    errors: &Mutex<Vec<String>>,
) {
    let mut number = journal.next_number(writer);
    let mut node = 1;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = connect_to(&places[node - 1], "postgres") else {
            node = node % places.len() + 1;
            std::thread::park_timeout(PAUSE);
            continue;
        };
        let Ok(insert) = client.prepare(INSERT) else { continue };
        while !stop.load(Ordering::Relaxed) {
            let begun_us = crate::journal::now_us();
            let written = write_one(journal, &mut client, &insert, writer, number);
            // Of one that failed nobody knows whether it is there.
            number += 1;
            match written {
                Ok(true) => {
                    let acknowledged_us = crate::journal::now_us();
                    served.lock().unwrap().push(Served { node, begun_us, acknowledged_us });
                }
                Ok(false) => {}
                Err(error) => {
                    errors.lock().unwrap().push(with_cause(&error));
                    break;
                }
            }
            std::thread::park_timeout(pause);
        }
    }
}

/// A turn of a node: it acknowledges, and before it another one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which node.
    pub node: usize,
    /// When the last commit began that this node acknowledged in an earlier turn; zero when it had
    /// none.
    pub since_us: u64,
    /// When this turn's first commit was acknowledged.
    pub until_us: u64,
}

/// How often the node that acknowledges changed at the least.
pub fn changes(served: &[Served]) -> u64 {
    turns(served).len() as u64
}

/// The turns that nodes took, the very first one left out, as far as they are certain: a commit
/// that began after another one was acknowledged came later.
pub fn turns(served: &[Served]) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut current: Option<Served> = None;
    let mut begun_us = [0; 2];
    for next in served {
        match current {
            Some(last) if last.node == next.node => {}
            // They may have been one after the other in either order.
            Some(last) if next.begun_us < last.acknowledged_us => continue,
            Some(_) => turns.push(Turn {
                node: next.node,
                since_us: begun_us[next.node - 1],
                until_us: next.acknowledged_us,
            }),
            None => {}
        }
        begun_us[next.node - 1] = begun_us[next.node - 1].max(next.begun_us);
        current = Some(*next);
    }
    turns
}

/// The longest time in which nothing was acknowledged: the last commit before, the first after.
pub fn longest_outage(served: &[Served]) -> Option<[Served; 2]> {
    let gaps = served.windows(2).map(|two| [two[0], two[1]]);
    gaps.max_by_key(|two| two[1].acknowledged_us - two[0].acknowledged_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(node: usize, begun_us: u64, acknowledged_us: u64) -> Served {
        Served { node, begun_us, acknowledged_us }
    }

    #[test]
    fn a_node_that_goes_on_after_another_one_began_is_a_change() {
        let takeover = [served(1, 0, 10), served(1, 11, 20), served(2, 25, 30)];
        let turn = |node, since_us, until_us| Turn { node, since_us, until_us };
        assert_eq!(turns(&takeover), [turn(2, 0, 30)]);
        let split = [&takeover[..], &[served(1, 31, 40), served(2, 41, 50)]].concat();
        assert_eq!(turns(&split), [turn(2, 0, 30), turn(1, 11, 40), turn(2, 25, 50)]);
        // Begun before the other one's was acknowledged: it may have been first.
        let late = [&takeover[..], &[served(1, 21, 31)]].concat();
        assert_eq!(changes(&late), 1);
        let gap = [served(1, 0, 10), served(2, 0, 90), served(2, 91, 95)];
        assert_eq!(longest_outage(&gap), Some([gap[0], gap[1]]));
    }
}

/// A client that changes much at a time, so that far more log is on its way to the other node, and
/// not on its disk, than the commits of a few rows are. What came of that is not looked at.
#[derive(Debug)]
pub struct Bulk {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bulk {
    /// What it changes; made before it is started.
    pub const TABLE: &str = "CREATE TABLE bulk AS SELECT i AS id, 0 AS n, repeat('x', 500) AS body \
                             FROM generate_series(1, 3000) i";

    /// Starts it on the node that serves, with whose server it ends.
    pub fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, node) = (cluster.client.try_clone().unwrap(), cluster.wait_serving());
        let thread = spawn({
            let stop = Arc::clone(&stop);
            move || {
                Lan::enter_as_client(&client);
                let mut client = connect(node, "postgres").expect("it serves");
                while !stop.load(Ordering::Relaxed)
                    && client.batch_execute("UPDATE bulk SET n = n + 1").is_ok()
                {}
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err())
            && !std::thread::panicking()
        {
            panic!("the client that changes much did not begin");
        }
    }
}
