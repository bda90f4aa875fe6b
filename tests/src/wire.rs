//! Two nodes in one process, joined without a network: the log is copied from one to the other and
//! the acknowledgements back, as the link does it, by one thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use duolog_engine::node::Node;

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;
/// How long the thread sleeps where nothing tells it of news, of what the second node applied.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Copies the log until dropped.
#[derive(Debug)]
pub struct Wire {
    over: Arc<AtomicBool>,
    withheld: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Joins the node that leads, or is about to, with the one that follows.
    pub fn join(from: &Arc<Node>, to: &Arc<Node>) -> Self {
        let (over, withheld) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (ring, rung) = mpsc::channel();
        let ring = Mutex::new(ring);
        // A node tells one link; of one that was joined again the sleep alone takes the place.
        from.on_progress(move || ring.lock().unwrap().send(()).unwrap_or(()));
        let thread = std::thread::spawn({
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let (over, withheld) = (Arc::clone(&over), Arc::clone(&withheld));
            move || copy(&from, &to, &over, &withheld, &rung)
        });
        Self { over, withheld, thread: Some(thread) }
    }

    /// Whether the second node is not told what is committed: it receives, and applies nothing.
    pub fn withhold_commits(&self, withheld: bool) {
        self.withheld.store(withheld, Ordering::Relaxed);
    }
}

fn copy(
    from: &Node,
    to: &Node,
    over: &AtomicBool,
    withheld: &AtomicBool,
    rung: &mpsc::Receiver<()>,
) {
    from.peer_connected(true);
    to.begin_receiving();
    let mut at = to.end().lsn;
    while !over.load(Ordering::Relaxed) {
        let end = from.end_lsn();
        while at < end {
            let mut bytes = Vec::new();
            from.read_raw(at, CHUNK, &mut bytes).unwrap();
            to.receive(at, &bytes).unwrap();
            at = at.plus(bytes.len() as u64);
        }
        let durable = to.sync_received().unwrap();
        let view = from.leads().unwrap_or_default();
        from.peer_durable(view, durable, to.applied(), to.room(), None).unwrap();
        if !withheld.load(Ordering::Relaxed) {
            to.announce_committed(from.committed());
        }
        if at == from.end_lsn() {
            // Whether somebody rang or the time is over: the next round looks.
            rung.recv_timeout(LOOK_EVERY).ok();
        }
        while rung.try_recv().is_ok() {}
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the wire between the nodes broke");
        }
    }
}
