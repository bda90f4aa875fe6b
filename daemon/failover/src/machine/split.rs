//! Split brain: both nodes went on alone from one history. With a witness only operators can
//! bring it about, by forcing both; without one the network can.
//!
//! Both stop acknowledging as soon as they meet, so that both compare the same two ends and come
//! to the same winner. The loser's tail becomes a branch; nothing is thrown away.

use duolog_wal::{HistoryEntry, Lsn, NodeId, View};

use super::alone::epoch;
use super::{Machine, Split};
use crate::effect::{Decider, Note};
use crate::message::Beat;
use crate::settings::Winner;
use crate::{CommitRule, Effect, Forced};

impl Machine {
    /// Whether the peer stands on a line of its own that this node lacks, and the other way
    /// round. Equal numbers prove nothing, nor do different ones: the histories do.
    pub(super) fn meets_split(&self, beat: &Beat) -> bool {
        let (mine, theirs) = (self.register.conf, beat.conf);
        let both_alone = self.alone_here()
            && !theirs.pair
            && theirs.primary == self.me.peer()
            && theirs.num.0 > 0;
        if !both_alone || beat.won == Some(mine) || self.won == Some(theirs) {
            return false;
        }
        // A higher epoch was forced after the other line was known to be in the way.
        if epoch(mine.num) != epoch(theirs.num) {
            return false;
        }
        let here = with(&self.log.history, mine);
        let there = with(&beat.history, theirs);
        let lacks = |history: &[HistoryEntry], view: View| {
            !history.iter().any(|entry| entry.num == view.num && entry.origin == view.origin)
        };
        let apart = lacks(&here, theirs) && lacks(&there, mine);
        // Where a witness decides, lines that do not reach back to a common view are one line of
        // which both remember too little.
        apart && (mine.witness == 0 || theirs.witness == 0 || fork(&here, &there).is_some())
    }

    pub(super) fn begin_split(&mut self, beat: &Beat) {
        if self.split.is_none() {
            // Where nothing was acknowledged anyway, the facts are final already.
            self.split = Some(match self.said.commit {
                CommitRule::Blocked => Split::Frozen,
                CommitRule::Local | CommitRule::Pair { .. } => Split::Freezing,
            });
            self.begun = None;
            self.settle_commit();
            self.note_split(beat, None);
        }
    }

    fn note_split(&mut self, beat: &Beat, winner: Option<NodeId>) {
        let here = with(&self.log.history, self.register.conf);
        let fork = fork(&here, &with(&beat.history, beat.conf));
        let (here, there) = (self.log.end.lsn, beat.end.lsn);
        self.out.push(Effect::Record(Note::SplitBrain { fork, here, there, winner }));
    }

    /// Once both have stopped acknowledging, both know who goes on.
    pub(super) fn settle_split(&mut self) {
        if self.split != Some(Split::Frozen) {
            return;
        }
        let Some(beat) = self.peer.beat.clone() else { return };
        if !self.meets_split(&beat) || !beat.frozen {
            return;
        }
        let winner = match self.settings.split_brain {
            Winner::Ask => return,
            Winner::Node(node) => node,
            Winner::Longer => {
                let (mine, theirs) = (self.log.committed, beat.committed);
                match mine.cmp(&theirs) {
                    std::cmp::Ordering::Greater => self.me,
                    std::cmp::Ordering::Less => self.me.peer(),
                    std::cmp::Ordering::Equal => NodeId::Node1,
                }
            }
        };
        if winner == self.me {
            self.note_split(&beat, Some(winner));
            self.win(beat.conf, beat.hi, Decider::BothNodes);
        }
    }

    /// An operator settles what the settings leave to a human. Only on the winner.
    pub(super) fn settle_split_by_hand(&mut self, forced: Forced) -> bool {
        let Some(beat) = self.peer.beat.clone() else { return false };
        if self.split.is_none() || !self.meets_split(&beat) {
            return false;
        }
        self.note_split(&beat, Some(self.me));
        self.out.push(Effect::Record(Note::Forced(forced.clone())));
        self.win(beat.conf, beat.hi, Decider::Operator(forced));
        true
    }
}

/// A history that ends with the chosen view, also while its record is not in the log.
fn with(history: &[HistoryEntry], view: View) -> Vec<HistoryEntry> {
    let mut history = history.to_vec();
    let known = |entry: &HistoryEntry| entry.num == view.num && entry.origin == view.origin;
    if !history.iter().any(known) {
        let start = Lsn(u64::MAX);
        history.push(HistoryEntry { num: view.num, origin: view.origin, start });
    }
    history
}

/// Where two histories part: the start of the first view that follows the newest common one.
fn fork(one: &[HistoryEntry], other: &[HistoryEntry]) -> Option<Lsn> {
    let common = one.iter().rposition(|entry| other.contains(entry))?;
    let same = other.iter().position(|entry| *entry == one[common])?;
    let next = |history: &[HistoryEntry], at: usize| history.get(at + 1).map(|entry| entry.start);
    match (next(one, common), next(other, same)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duolog_wal::ViewNum;

    fn entry(num: u64, origin: NodeId, start: u64) -> HistoryEntry {
        HistoryEntry { num: ViewNum(num), origin, start: Lsn(start) }
    }

    #[test]
    fn histories_part_where_the_first_of_two_goes_on_by_itself() {
        let common = [entry(1, NodeId::Node1, 0), entry(2, NodeId::Node1, 10)];
        let one = [common.as_slice(), &[entry(3, NodeId::Node1, 30)]].concat();
        let other = [common.as_slice(), &[entry(3, NodeId::Node2, 25)]].concat();
        assert_eq!(fork(&one, &other), Some(Lsn(25)));
        assert_eq!(fork(&one[2..], &other[2..]), None);
        assert_eq!(fork(&common, &common), None);
    }
}
