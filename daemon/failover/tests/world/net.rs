//! Everything that was ever said and may still count.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use duolog_failover::{CommitRule, Message, Question, Register, Reply};
use duolog_wal::ViewNum;

use super::{Letter, World};

/// A letter on its way, and its hash.
#[derive(Clone, Debug)]
struct Sent(u64, Arc<Letter>);

/// Letters that are on their way, sorted by their hashes: the same in every run, so that a walk
/// can be walked again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Net(Vec<Sent>);

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Sent {}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Net {
    pub(crate) fn insert(&mut self, letter: Letter) {
        let mut hasher = DefaultHasher::new();
        letter.hash(&mut hasher);
        let place = hasher.finish();
        if let Err(at) = self.0.binary_search_by_key(&place, |sent| sent.0) {
            self.0.insert(at, Sent(place, Arc::new(letter)));
        }
    }

    /// Drops what can do nothing any more, whenever it arrives.
    pub(crate) fn retain(&mut self, lives: impl Fn(&Letter) -> bool) {
        self.0.retain(|sent| lives(&sent.1));
    }

    pub(crate) fn letters(&self) -> impl Iterator<Item = Arc<Letter>> + use<'_> {
        self.0.iter().map(|sent| sent.1.clone())
    }
}

impl World {
    /// Takes away the letters that can do nothing any more. Numbers only rise, so what comes too
    /// late now will always come too late; with them gone, worlds that differ in nothing else
    /// are one.
    pub(crate) fn sweep(&mut self) {
        let mut net = std::mem::take(&mut self.net);
        net.retain(|letter| self.lives(letter));
        self.net = net;
    }

    fn lives(&self, letter: &Letter) -> bool {
        match letter {
            Letter::Peer(to, message) => {
                let it = self.node(*to);
                let register = &it.register;
                match message {
                    Message::Beat(_) | Message::Gone(_) => true,
                    Message::Answer { incarnation, .. } => *incarnation == it.incarnation,
                    // To one that has accepted it, it only says what the acceptance, which is on
                    // its way, says already. What builds on less than is chosen here builds on
                    // less for ever.
                    Message::Prop(prop) => {
                        prop.view.num > register.conf.num
                            && (prop.base == register.conf || prop.base.num > register.conf.num)
                    }
                    Message::Accepted { view, .. } => it.machine.proposes() == Some(*view),
                    Message::Go { view } => view.num >= register.conf.num,
                }
            }
            Letter::Ask(_, question) => self.witnesses.iter().any(|witness| {
                let reg = witness.reg().map_or(ViewNum(0), |reg| reg.num);
                match question {
                    // A refusal is a word of the witness as well.
                    Question::Beat(_) | Question::Gone(_) | Question::Ask(_) => true,
                    Question::Learn { view } => view.witness == witness.wid() && view.num > reg,
                }
            }),
            Letter::Reply(to, reply) => {
                let it = self.node(*to);
                match reply {
                    Reply::Beat(_) => true,
                    Reply::Grant { view, nonce } => {
                        view.num > it.register.hi && nonce >> 40 == it.incarnation
                    }
                    Reply::Refuse { nonce, .. } => nonce >> 40 == it.incarnation,
                }
            }
            Letter::Ack(to, view, durable) => {
                let it = self.node(*to);
                let Register { conf, pend, .. } = it.register;
                match pend {
                    Some(pend) => pend.num == *view && it.machine.leads() == Some(*view),
                    None if it.rule == (CommitRule::Pair { view: *view }) => *durable > it.acked,
                    // One that was handed the view begins to lead it by and by; a view that an
                    // earlier incarnation led is led by none again.
                    None => conf.num == *view && it.machine.was_handed(),
                }
            }
        }
    }
}
