//! What a SQL server promised, written down outside of every mount.
//!
//! A writer notes a transaction before it begins, and notes the acknowledgement of its commit
//! before it goes on. Several processes may write one journal: a note is one line, appended by
//! one `write`. The file needs no sync, since no test takes the power from this machine.
//!
//! ```text
//! seed 42
//! b 3 17 1700000000000000    writer 3 begins its transaction 17, microseconds since 1970
//! a 3 17 1700000000000730    its commit was acknowledged
//! s 3 17 1700000000000900    a reader saw it: it may not be gone later
//! r 3 18 1700000000001000    it was rolled back: nobody may ever see it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::rows::{Row, transaction};
use crate::wait;

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// A journal on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    seed: u64,
}

impl Journal {
    /// A new journal of rows that follow from `seed`.
    pub fn create(path: &Path, seed: u64) -> Self {
        fs::write(path, format!("seed {seed}\n")).unwrap();
        Self::open(path)
    }

    /// A journal that exists, to be gone on with.
    pub fn open(path: &Path) -> Self {
        let seed = Promises::read(path).seed;
        let file = File::options().append(true).open(path).unwrap();
        Self { path: path.to_owned(), file, seed }
    }

    /// The seed from which its rows follow.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The transaction is about to begin.
    pub fn begin(&self, writer: u32, number: u64) {
        self.note('b', writer, number);
    }

    /// The server said that the transaction is committed.
    pub fn acknowledged(&self, writer: u32, number: u64) {
        self.note('a', writer, number);
    }

    /// The writer took the transaction back.
    pub fn rolled_back(&self, writer: u32, number: u64) {
        self.note('r', writer, number);
    }

    fn note(&self, what: char, writer: u32, number: u64) {
        let line = format!("{what} {writer} {number} {}\n", now_us());
        let written = (&self.file).write(line.as_bytes()).unwrap();
        assert_eq!(written, line.len(), "a note of the journal is whole or absent");
    }

    /// The number that the writer's next transaction gets.
    pub fn next_number(&self, writer: u32) -> u64 {
        let promises = self.promises();
        let of_writer = promises.transactions.range((writer, 0)..=(writer, u64::MAX));
        of_writer.last().map_or(1, |((_, number), _)| number + 1)
    }

    /// What was promised so far.
    pub fn promises(&self) -> Promises {
        Promises::read(&self.path)
    }

    /// How many commits were acknowledged so far.
    pub fn count(&self) -> u64 {
        let text = fs::read(&self.path).unwrap();
        text.split(|byte| *byte == b'\n').map(|line| u64::from(line.starts_with(b"a "))).sum()
    }

    /// Waits until `more` further commits were acknowledged; asks `alive` meanwhile, which
    /// fails the test when its writers do not go on.
    pub fn wait_for(&self, more: u64, limit: Duration, mut alive: impl FnMut()) {
        let (before, target) = (self.count(), self.count() + more);
        let reached = wait::within(limit, || {
            alive();
            (self.count() >= target).then_some(())
        });
        let came = self.count() - before;
        let seconds = limit.as_secs();
        assert!(reached.is_some(), "{came} commits instead of {more} within {seconds} s");
    }

    /// What was seen is promised: a reader that saw a commit may rely on it (no phantoms).
    pub fn seen<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) {
        let promises = self.promises();
        for row in rows {
            let key = (row.writer, row.number);
            let open = promises.transactions.get(&key).is_some_and(|it| it.end == End::Open);
            if open && row.part == 0 {
                self.note('s', row.writer, row.number);
            }
        }
    }
}

/// How a transaction ended, as far as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not told: it may be there or not.
    Open,
    Acknowledged {
        at_us: u64,
        /// By a reader who saw it, and not to its writer.
        seen: bool,
    },
    RolledBack,
}

/// How a promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// Its commit was acknowledged and it is not there.
    Lost,
    /// A reader saw it and it is not there.
    Vanished,
    /// It is there and nobody began it, or it was rolled back, or began later.
    Phantom,
    /// It is there in part, or says something else than what was written.
    Torn,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    begun_us: u64,
    end: End,
}

/// What a journal says.
#[derive(Clone, Debug)]
pub struct Promises {
    seed: u64,
    transactions: BTreeMap<(u32, u64), Noted>,
}

/// A transaction that was promised and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// What it had written.
    pub rows: Vec<Row>,
    /// When its client was told, microseconds since 1970.
    pub acknowledged_us: u64,
}

/// The moment whose state rows show, as an interval in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What was acknowledged before this is there.
    pub not_before_us: u64,
    /// What began after this is not there.
    pub not_after_us: u64,
}

impl Moment {
    /// After all that the journal tells of.
    pub const END: Self = Self { not_before_us: u64::MAX, not_after_us: u64::MAX };
}

/// How many transactions were found as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survived {
    /// Acknowledged, and there.
    pub acknowledged: u64,
    /// There without having been acknowledged: they were under way.
    pub under_way: u64,
}

impl Promises {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let seed = lines.next().unwrap().strip_prefix("seed ").unwrap().parse().unwrap();
        let mut transactions = BTreeMap::new();
        // A last line without its end is one that is being written.
        let whole = if text.ends_with('\n') { usize::MAX } else { lines.clone().count() - 1 };
        for line in lines.take(whole) {
            let fields: Vec<_> = line.split(' ').collect();
            let [what, writer, number, at_us] = fields[..] else { panic!("a note: {line}") };
            let key = (writer.parse().unwrap(), number.parse().unwrap());
            let at_us = at_us.parse().unwrap();
            let noted =
                transactions.entry(key).or_insert(Noted { begun_us: at_us, end: End::Open });
            match what {
                "b" => assert!(noted.end == End::Open, "begun twice: {line}"),
                "a" => noted.end = End::Acknowledged { at_us, seen: false },
                "s" if noted.end == End::Open => {
                    noted.end = End::Acknowledged { at_us, seen: true };
                }
                // It was acknowledged meanwhile.
                "s" => {}
                "r" => noted.end = End::RolledBack,
                _ => panic!("a note: {line}"),
            }
        }
        Self { seed, transactions }
    }

    /// How many commits were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let noted = self.transactions.values();
        noted.map(|noted| u64::from(matches!(noted.end, End::Acknowledged { .. }))).sum()
    }

    /// What was promised and is not there at `moment`, where an operator has left something behind.
    ///
    /// # Panics
    /// With everything that is torn, changed or should not be there.
    pub fn left_behind(&self, rows: &[Row], moment: Moment) -> Vec<LeftBehind> {
        let (_, faults) = self.find(rows, moment);
        let other = faults.iter().find(|(how, _)| !matches!(how, Broken::Lost | Broken::Vanished));
        assert!(other.is_none(), "{other:?}");
        let there: BTreeSet<_> = rows.iter().map(|row| (row.writer, row.number)).collect();
        let promised = self.transactions.iter().filter_map(|(key, noted)| match noted.end {
            End::Acknowledged { at_us, .. } => Some((*key, at_us)),
            _ => None,
        });
        promised
            .filter(|(key, at_us)| *at_us < moment.not_before_us && !there.contains(key))
            .map(|((writer, number), acknowledged_us)| LeftBehind {
                rows: transaction(self.seed, writer, number),
                acknowledged_us,
            })
            .collect()
    }

    /// Compares what a server shows with what was promised, at the end of the journal.
    ///
    /// # Panics
    /// With everything that is lost, torn, changed or should not be there.
    pub fn check(&self, rows: &[Row]) -> Survived {
        self.check_at(rows, Moment::END)
    }

    /// Compares what a server shows of `moment` with what was promised.
    ///
    /// # Panics
    /// With everything that is lost, torn, changed or should not be there.
    pub fn check_at(&self, rows: &[Row], moment: Moment) -> Survived {
        self.compare(rows, moment).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn compare(&self, rows: &[Row], moment: Moment) -> Result<Survived, String> {
        let (survived, faults) = self.find(rows, moment);
        if faults.is_empty() {
            return Ok(survived);
        }
        let mut text = format!("{} promises are broken (seed {})", faults.len(), self.seed);
        for (_, fault) in faults.iter().take(20) {
            write!(text, "\n  {fault}").unwrap();
        }
        Err(text)
    }

    /// What survived of what was promised, and every promise that is broken, in words.
    pub fn find(&self, rows: &[Row], moment: Moment) -> (Survived, Vec<(Broken, String)>) {
        let mut there: BTreeMap<(u32, u64), Vec<&Row>> = BTreeMap::new();
        for row in rows {
            there.entry((row.writer, row.number)).or_default().push(row);
        }
        let mut faults = Vec::new();
        let mut fault = |how: Broken, what: &str, (writer, number): (u32, u64)| {
            faults.push((how, format!("{what}: transaction {number} of writer {writer}")));
        };
        let mut survived = Survived { acknowledged: 0, under_way: 0 };
        for (key, mut rows) in there.iter().map(|(key, rows)| (*key, rows.clone())) {
            match self.transactions.get(&key) {
                None => fault(Broken::Phantom, "nobody began it and it is there", key),
                Some(Noted { end: End::RolledBack, .. }) => {
                    fault(Broken::Phantom, "it was rolled back and is there", key);
                }
                Some(noted) if noted.begun_us > moment.not_after_us => {
                    fault(Broken::Phantom, "it began after the moment and is there", key);
                }
                Some(Noted { end: End::Acknowledged { .. }, .. }) => survived.acknowledged += 1,
                Some(Noted { end: End::Open, .. }) => survived.under_way += 1,
            }
            rows.sort_by_key(|row| row.part);
            let whole = transaction(self.seed, key.0, key.1);
            if rows.len() != whole.len() {
                fault(Broken::Torn, "only a part of it is there", key);
            } else if !rows.iter().copied().eq(&whole) {
                fault(Broken::Torn, "its rows do not say what was written", key);
            }
        }
        for (key, noted) in &self.transactions {
            let End::Acknowledged { at_us, seen } = noted.end else { continue };
            if at_us >= moment.not_before_us || there.contains_key(key) {
                continue;
            }
            if seen {
                fault(Broken::Vanished, "a reader saw it and it is LOST", *key);
            } else {
                fault(Broken::Lost, "its commit was acknowledged and it is LOST", *key);
            }
        }
        (survived, faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const SEED: u64 = 5;

    /// Writer 1: transaction 1 to 3 acknowledged, 4 rolled back, 5 under way.
    fn journal(scratch: &Scratch) -> Journal {
        let journal = Journal::create(&scratch.path().join("journal"), SEED);
        for number in 1..=5 {
            journal.begin(1, number);
            match number {
                4 => journal.rolled_back(1, number),
                5 => {}
                _ => journal.acknowledged(1, number),
            }
        }
        journal
    }

    fn rows(numbers: &[u64]) -> Vec<Row> {
        numbers.iter().flat_map(|number| transaction(SEED, 1, *number)).collect()
    }

    #[test]
    fn what_was_under_way_may_be_there_or_not() {
        let scratch = Scratch::new("journal");
        let promises = journal(&scratch).promises();
        assert_eq!(promises.acknowledged(), 3);
        let survived = promises.check(&rows(&[1, 2, 3]));
        assert_eq!(survived, Survived { acknowledged: 3, under_way: 0 });
        let survived = promises.check(&rows(&[1, 2, 3, 5]));
        assert_eq!(survived, Survived { acknowledged: 3, under_way: 1 });
    }

    #[test]
    fn every_broken_promise_is_found() {
        let scratch = Scratch::new("journal");
        let promises = journal(&scratch).promises();
        let broken = |rows: &[Row]| promises.compare(rows, Moment::END).unwrap_err();
        assert!(broken(&rows(&[1, 3])).contains("LOST: transaction 2"));
        assert!(broken(&rows(&[1, 2, 3, 4])).contains("rolled back and is there: transaction 4"));
        assert!(broken(&rows(&[1, 2, 3, 6])).contains("nobody began it and it is there"));
        let mut changed = rows(&[1, 2, 3]);
        changed[0].body.replace_range(0..1, "x");
        assert!(broken(&changed).contains("do not say what was written: transaction 1"));
        let number = (1..=3).find(|number| transaction(SEED, 1, *number).len() > 1).unwrap();
        let mut torn = rows(&[1, 2, 3]);
        torn.retain(|row| (row.number, row.part) != (number, 0));
        assert!(broken(&torn).contains("only a part of it is there"));
    }

    #[test]
    fn a_moment_has_what_was_acknowledged_before_and_nothing_that_began_after() {
        let scratch = Scratch::new("journal");
        let journal = journal(&scratch);
        // Two notes in one microsecond would leave nothing between them.
        let after = now_us() + 2;
        wait::until("the clock", Duration::from_secs(1), || (now_us() > after).then_some(()));
        journal.begin(1, 6);
        journal.acknowledged(1, 6);
        let moment = Moment { not_before_us: after - 1, not_after_us: after };
        let promises = journal.promises();
        promises.check_at(&rows(&[1, 2, 3]), moment);
        let broken = |numbers| promises.compare(&rows(numbers), moment).unwrap_err();
        assert!(broken(&[1, 2, 3, 6]).contains("began after the moment and is there"));
        assert!(broken(&[1, 2]).contains("LOST: transaction 3"));
        assert!(promises.compare(&rows(&[1, 2, 3]), Moment::END).is_err());
    }

    #[test]
    fn what_a_reader_saw_is_promised_from_then_on() {
        let scratch = Scratch::new("journal");
        let journal = journal(&scratch);
        journal.seen(&rows(&[1, 5]));
        let broken = journal.promises().compare(&rows(&[1, 2, 3]), Moment::END);
        assert!(broken.unwrap_err().contains("LOST: transaction 5"));
        assert_eq!(journal.next_number(1), 6);
        assert_eq!(journal.next_number(2), 1);
    }
}
