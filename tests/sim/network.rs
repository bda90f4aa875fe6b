//! The network between two nodes and a witness: which wires are cut, how long a datagram takes,
//! whether it is lost, comes twice, or comes much later.

use duolog_engine::disk::sim::Random;

/// Who can talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// Node 1 or 2, by its index.
    Node(usize),
    /// The witness.
    Witness,
}

/// The wires, and the weather on them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// Between the nodes.
    pub(crate) cut: bool,
    /// Between each node and the witness.
    pub(crate) cut_witness: [bool; 2],
    /// Until then datagrams are lost, late and doubled.
    pub(crate) storm_until: u64,
    /// Nothing is lost, late or doubled.
    pub(crate) calm: bool,
}

impl Network {
    /// Whether nothing passes between the two.
    pub(crate) fn is_cut(&self, from: Party, to: Party) -> bool {
        match (from, to) {
            (Party::Node(_), Party::Node(_)) => self.cut,
            (Party::Node(node), Party::Witness) | (Party::Witness, Party::Node(node)) => {
                self.cut_witness[node]
            }
            (Party::Witness, Party::Witness) => false,
        }
    }

    /// When a datagram that is sent now arrives: not at all, once, or twice.
    pub(crate) fn arrivals(
        &self,
        from: Party,
        to: Party,
        now: u64,
        random: &mut Random,
    ) -> Vec<u64> {
        if self.is_cut(from, to) {
            return Vec::new();
        }
        if self.calm {
            return vec![now + 1 + random.below(4) as u64];
        }
        let storm = now < self.storm_until;
        let odds = if storm { 3 } else { 50 };
        if random.once_in(odds) {
            return Vec::new();
        }
        let copies = if random.once_in(if storm { 4 } else { 40 }) { 2 } else { 1 };
        let late = |random: &mut Random| {
            let spread = match () {
                () if storm && random.once_in(5) => 20_000,
                () if random.once_in(60) => 8_000,
                () if storm => 400,
                () => 4,
            };
            now + 1 + random.below(spread) as u64
        };
        (0..copies).map(|_| late(random)).collect()
    }
}
