//! Everything that was ever said, each kept once for all worlds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock};

use stateright::util::HashableHashMap;

use duolog_failover::{Message, Question, Reply};
use duolog_wal::ViewNum;

use super::{Letter, World};

/// Letters that are on their way, each by its hash; sorted. The same in every run, so that a walk
/// can be walked again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Net(Vec<u64>);

fn book() -> &'static Mutex<HashableHashMap<u64, Arc<Letter>>> {
    static BOOK: OnceLock<Mutex<HashableHashMap<u64, Arc<Letter>>>> = OnceLock::new();
    BOOK.get_or_init(Mutex::default)
}

impl Net {
    pub(crate) fn insert(&mut self, letter: Letter) {
        let mut hasher = DefaultHasher::new();
        letter.hash(&mut hasher);
        let place = hasher.finish();
        if let Err(at) = self.0.binary_search(&place) {
            self.0.insert(at, place);
            let mut book = book().lock().expect("nobody panics with it");
            book.entry(place).or_insert_with(|| Arc::new(letter));
        }
    }

    /// Drops what can do nothing any more, whenever it arrives.
    pub(crate) fn retain(&mut self, lives: impl Fn(&Letter) -> bool) {
        let book = book().lock().expect("nobody panics with it");
        self.0.retain(|place| lives(&book[place]));
    }

    pub(crate) fn letters(&self) -> impl Iterator<Item = Arc<Letter>> + use<> {
        let book = book().lock().expect("nobody panics with it");
        let letters: Vec<_> = self.0.iter().map(|place| book[place].clone()).collect();
        letters.into_iter()
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
                    // To one that has accepted it, it only says what the register says already.
                    Message::Prop(prop) => {
                        prop.view.num > register.conf.num || prop.view == register.conf
                    }
                    Message::Accepted { view, .. } => register.pend == Some(*view),
                    Message::Go { view } => view.num >= register.conf.num,
                }
            }
            Letter::Ask(from, question) => self.witnesses.iter().any(|witness| {
                let reg = witness.reg().map_or(ViewNum(0), |reg| reg.num);
                let own = witness.reg().is_some_and(|reg| !reg.pair && reg.primary == *from);
                match question {
                    Question::Beat(_) | Question::Gone(_) => true,
                    Question::Learn { view } => view.witness == witness.wid() && view.num > reg,
                    Question::Ask(ask) => {
                        ask.base.witness == witness.wid() && (own || reg <= ask.base.num)
                    }
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
            Letter::Ack(to, view, _) => *view >= self.node(*to).register.conf.num,
        }
    }
}
