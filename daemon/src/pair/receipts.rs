//! Failover receipts: why this node was promoted, who decided, what it knew, and how long each
//! step took. Small JSON files, each the document that the API shows, the newest of them kept; written
//! by a thread of their own so that no take-over waits for them.
//!
//! ```text
//! STATE/receipts/0000000000000007.json     replaced once, when the start that follows has ended
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use duolog_console::api::records::{Happened, Phases, Promoted, Receipt};
use duolog_engine::disk::{DirDisk, Disk, replace};
use duolog_failover::{Decider, Now, Promotion, Receipt as Decision, Ticket};
use duolog_wal::{Cursor, Lsn, View};

use super::kept::{small_files, wall_ms};
use super::promotions::Promotions;

/// Receipts that are kept.
const KEPT: usize = 200;

/// How a start went.
#[derive(Clone, Debug)]
pub(super) struct Started {
    /// When it began, and each step was done.
    pub begun: Now,
    pub applied: Option<Now>,
    pub mounted: Option<Now>,
    pub addressed: Option<Now>,
    pub ended: Now,
    /// Why it does not serve, if so.
    pub failed: Option<String>,
}

/// What the writing thread is told.
enum Order {
    Write(Box<Receipt>),
    /// The same, once the fingerprint at that position was looked up.
    Fingerprint(Box<Receipt>, Lsn),
}

/// Looks up the fingerprint of the log at a position.
pub(super) type Fingerprint = Box<dyn Fn(Lsn) -> Option<Cursor> + Send>;

/// The receipts of a node that runs.
#[derive(Debug)]
pub(super) struct Receipts {
    node: u8,
    incarnation: u64,
    next: u64,
    promotions: Arc<Promotions>,
    /// The promotion whose start has not ended.
    open: Option<(Receipt, Now, Option<Ticket>)>,
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Receipts {
    pub(super) fn start(
        state_dir: &Path,
        node: u8,
        incarnation: u64,
        fingerprint: Fingerprint,
        promotions: Arc<Promotions>,
    ) -> io::Result<Self> {
        let dir = place(state_dir);
        let disk = small_files(&dir)?;
        let next = numbers(&dir)?.last().map_or(1, |last| last + 1);
        let (orders, written) = channel();
        let thread = std::thread::Builder::new()
            .name("duolog-receipts".into())
            .spawn(move || write_all(&disk, &dir, &written, &fingerprint))?;
        let (orders, thread) = (Some(orders), Some(thread));
        Ok(Self { node, incarnation, next, promotions, open: None, orders, thread })
    }

    /// This node is promoted; the start that follows completes the receipt.
    pub(super) fn begin(&mut self, decision: &Decision) {
        self.conclude("another view began before it served");
        self.promotions.count(decision.why);
        let promoted = Promoted {
            why: why(decision.why).into(),
            decided_by: decided_by(&decision.decided_by),
            view: view(&decision.view),
            base_view: view(&decision.base),
            acknowledged_lsn: decision.acknowledged.0,
            acknowledged_chain: None,
            log_end_lsn: decision.promoted.lsn.0,
            log_end_chain: decision.promoted.chain.to_string(),
            phases_ms: Phases {
                silence: decision.asked.since(decision.last_heard),
                asking: decision.decided.since(decision.asked),
                ..Phases::default()
            },
            outcome: "under way".into(),
        };
        tracing::info!(
            why = promoted.why,
            decided_by = promoted.decided_by,
            view = promoted.view,
            silence_ms = promoted.phases_ms.silence,
            asking_ms = promoted.phases_ms.asking,
            "this node is promoted"
        );
        let entry = self.entry(Happened::Promoted(Box::new(promoted)));
        self.order(Order::Write(Box::new(entry.clone())));
        self.open = Some((entry, decision.decided, None));
    }

    /// That task is the start that follows.
    pub(super) fn start_is(&mut self, ticket: Ticket) {
        if let Some((.., start @ None)) = &mut self.open {
            *start = Some(ticket);
        }
    }

    /// That start has ended.
    pub(super) fn started(&mut self, ticket: Ticket, started: &Started) {
        let Some((mut entry, decided, _)) = self.open.take_if(|(.., start)| *start == Some(ticket))
        else {
            return;
        };
        if let Happened::Promoted(promoted) = &mut entry.what {
            let mut last = started.begun;
            let mut step = |at: Option<Now>| {
                let ms = at.map(|at| at.since(last));
                last = at.unwrap_or(last);
                ms
            };
            let phases = &mut promoted.phases_ms;
            phases.view = Some(started.begun.since(decided));
            phases.apply = step(started.applied);
            phases.mount = step(started.mounted);
            phases.address = step(started.addressed);
            phases.services = phases.address.and(step(Some(started.ended)));
            phases.serving = Some(started.ended.since(decided));
            promoted.outcome = started.failed.clone().unwrap_or_else(|| "serves".into());
            tracing::info!(?phases, outcome = promoted.outcome, "the start of a new primary");
        }
        self.complete(entry);
    }

    /// Something else that is kept.
    pub(super) fn note(&mut self, what: Happened) {
        let entry = self.entry(what);
        self.order(Order::Write(Box::new(entry)));
    }

    fn conclude(&mut self, outcome: &str) {
        if let Some((mut entry, ..)) = self.open.take() {
            if let Happened::Promoted(promoted) = &mut entry.what {
                outcome.clone_into(&mut promoted.outcome);
            }
            self.complete(entry);
        }
    }

    fn complete(&self, entry: Receipt) {
        match &entry.what {
            Happened::Promoted(promoted) => {
                let at = Lsn(promoted.acknowledged_lsn);
                self.order(Order::Fingerprint(Box::new(entry), at));
            }
            _ => self.order(Order::Write(Box::new(entry))),
        }
    }

    fn entry(&mut self, what: Happened) -> Receipt {
        let number = self.next;
        self.next += 1;
        let (node, incarnation) = (self.node, self.incarnation);
        Receipt { number, at_ms: wall_ms(), node, incarnation, what }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.send(order).is_err()
        {
            tracing::error!("receipts are not written any more");
        }
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        self.conclude("the node ended before it served");
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes receipts panicked");
        }
    }
}

fn write_all(disk: &DirDisk, dir: &Path, orders: &Receiver<Order>, fingerprint: &Fingerprint) {
    for order in orders {
        let entry = match order {
            Order::Write(entry) => entry,
            Order::Fingerprint(mut entry, at) => {
                if let Happened::Promoted(promoted) = &mut entry.what {
                    let cursor = fingerprint(at);
                    promoted.acknowledged_chain = cursor.map(|cursor| cursor.chain.to_string());
                }
                entry
            }
        };
        if let Err(error) = write(disk, dir, &entry) {
            tracing::error!(%error, number = entry.number, "a receipt is lost");
        }
    }
}

fn write(disk: &DirDisk, dir: &Path, entry: &Receipt) -> io::Result<()> {
    replace(disk, &name(entry.number), &serde_json::to_vec_pretty(entry)?)?;
    let numbers = numbers(dir)?;
    for old in &numbers[..numbers.len().saturating_sub(KEPT)] {
        disk.remove(&name(*old))?;
    }
    disk.sync_dir()
}

/// The receipts that are kept in a state directory, oldest first.
///
/// # Errors
/// The directory cannot be read. A receipt that does not read is left out, with a warning.
pub(crate) fn list(state_dir: &Path) -> io::Result<Vec<Receipt>> {
    let dir = place(state_dir);
    let mut entries = Vec::new();
    for number in numbers(&dir)? {
        let path = dir.join(name(number));
        let entry = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => tracing::warn!(path = %path.display(), %error, "a receipt is unreadable"),
        }
    }
    Ok(entries)
}

/// How many split brains are among them.
///
/// # Errors
/// As [`list`].
pub(crate) fn split_brains(state_dir: &Path) -> io::Result<u64> {
    let entries = list(state_dir)?;
    let split = entries.iter().filter(|entry| matches!(entry.what, Happened::SplitBrain { .. }));
    Ok(split.count() as u64)
}

fn place(state_dir: &Path) -> PathBuf {
    state_dir.join("receipts")
}

fn name(number: u64) -> String {
    format!("{number:016}.json")
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

const fn view(view: &View) -> u64 {
    view.num.0
}

pub(super) const fn why(promotion: Promotion) -> &'static str {
    match promotion {
        Promotion::PrimaryLost => "primary lost",
        Promotion::PrimaryGone => "primary gone",
        Promotion::PeerLost => "peer lost",
        Promotion::PeerStalled => "peer stalled",
        Promotion::PeerStopped => "peer stopped",
        Promotion::Swap => "swap",
        Promotion::Force => "forced",
        Promotion::Restart => "restart",
        Promotion::SplitBrain => "won a split brain",
    }
}

fn decided_by(decider: &Decider) -> String {
    match decider {
        Decider::Witness(id) => format!("witness {id:032x}"),
        Decider::Gateway => "this node, without a witness".into(),
        Decider::OnlyMember => "this node, the only member".into(),
        Decider::BothNodes => "both nodes".into(),
        Decider::Operator(forced) => format!("operator {}: {}", forced.who, forced.reason),
    }
}

#[cfg(test)]
mod tests {
    use duolog_failover::Register;
    use duolog_wal::{Chain, NodeId, ViewNum};

    use super::*;

    fn decision() -> Decision {
        let base = Register::first(NodeId::Node1).conf;
        Decision {
            why: Promotion::PrimaryLost,
            decided_by: Decider::Witness(0xabc),
            view: View { num: ViewNum(9), ..base },
            base,
            acknowledged: Lsn(70),
            promoted: Cursor { lsn: Lsn(80), chain: Chain(5), ..Cursor::default() },
            last_heard: Now(1_000),
            asked: Now(2_000),
            decided: Now(2_010),
        }
    }

    fn receipts(dir: &Path) -> Receipts {
        let chain = |lsn: Lsn| Some(Cursor { lsn, chain: Chain(7), ..Cursor::default() });
        Receipts::start(dir, 2, 4, Box::new(chain), Arc::default()).unwrap()
    }

    #[test]
    fn a_receipt_tells_why_who_and_how_long_each_step_took() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = receipts(dir.path());
        kept.begin(&decision());
        let counts = kept.promotions.counts();
        assert_eq!((counts["primary lost"], counts["swap"]), (1, 0));
        kept.start_is(Ticket(3));
        let started = Started {
            begun: Now(2_015),
            applied: Some(Now(2_035)),
            mounted: Some(Now(2_040)),
            addressed: Some(Now(2_043)),
            ended: Now(2_100),
            failed: None,
        };
        // That of a view before.
        let failed = Some("called off".into());
        kept.started(Ticket(2), &Started { applied: None, failed, ..started.clone() });
        kept.started(Ticket(3), &started);
        drop(kept);
        let [entry] = &list(dir.path()).unwrap()[..] else { panic!("one receipt") };
        assert_eq!((entry.number, entry.node, entry.incarnation), (1, 2, 4));
        let Happened::Promoted(promoted) = &entry.what else { panic!("{entry:?}") };
        assert_eq!(promoted.why, "primary lost");
        assert!(promoted.decided_by.ends_with("abc"), "{}", promoted.decided_by);
        assert_eq!((promoted.acknowledged_lsn, promoted.log_end_lsn), (70, 80));
        assert_eq!(promoted.acknowledged_chain, Some(Chain(7).to_string()));
        let phases = Phases {
            silence: 1_000,
            asking: 10,
            view: Some(5),
            apply: Some(20),
            mount: Some(5),
            address: Some(3),
            services: Some(57),
            serving: Some(90),
        };
        assert_eq!(promoted.phases_ms, phases);
        assert_eq!(promoted.outcome, "serves");
        let json = serde_json::to_value(entry).unwrap();
        assert_eq!(json["event"], "promoted");
        assert_eq!(json["phases_ms"]["silence"], 1_000);
    }

    #[test]
    fn a_start_that_fails_or_never_ends_is_told_and_old_receipts_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = receipts(dir.path());
        kept.begin(&decision());
        kept.start_is(Ticket(1));
        let failed = Some("no such program".into());
        let (begun, ended) = (Now(2_011), Now(2_012));
        let started =
            Started { begun, applied: None, mounted: None, addressed: None, ended, failed };
        kept.started(Ticket(1), &started);
        for _ in 0..KEPT {
            kept.begin(&decision());
        }
        drop(kept);
        let entries = list(dir.path()).unwrap();
        assert_eq!(entries.len(), KEPT);
        assert_eq!(entries[0].number, 2, "the oldest is gone");
        let outcomes = entries.iter().map(|entry| match &entry.what {
            Happened::Promoted(promoted) => promoted.outcome.as_str(),
            _ => "",
        });
        let outcomes: Vec<_> = outcomes.collect();
        assert_eq!(outcomes[0], "another view began before it served");
        assert_eq!(outcomes[KEPT - 1], "the node ended before it served");
        // The numbers go on.
        assert_eq!(receipts(dir.path()).next, KEPT as u64 + 2);
    }
}
