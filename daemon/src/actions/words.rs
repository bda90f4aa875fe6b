//! Brings an action to the other node and its answer back, as words between heartbeats: they are
//! authenticated and fresh, go by every path, and arrive also where the link is off. Each may be
//! lost: a question is said again until it is answered, and carried out once.

mod sealed;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use duolog_beat::{Seal, WORD_MAX};
use duolog_wal::NodeId;
use serde::{Deserialize, Serialize};

use super::{ActError, Refusal, Seat, SeatStanding, Wish};
use crate::document::said::{Asked, Said};

/// Most bytes of a sentence in one: it may double where all of it is quotes.
const SENTENCE_MAX: usize = 360;
/// How soon a question is said again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that are answered at a time.
const ANSWERED_MAX: usize = 32;
/// Questions that are remembered, so that none is carried out twice.
const REMEMBERED: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Ask { id: u64, what: Ask },
    Answer { id: u64, what: Answer },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Act {
        wish: Wish,
        who: String,
        /// Where a user of the console asks from; nothing: an operator at that computer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
    },
    Standing,
    /// Services failed there for good and are about to be handed over.
    ServicesMove,
    /// Of the settings of the pair: [`Asked`], sealed.
    Settings(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Begun,
    Refused(Refusal),
    Standing(SeatStanding),
    /// [`Said`], sealed.
    Settings(String),
    /// It was not understood, or cannot be answered now.
    Nothing,
}

/// Answers the other node's words.
pub(crate) trait Answering: Send + Sync {
    /// Begins what its operator wants here; `from` the address of one who uses its console, whose role
    /// is to be looked at here.
    ///
    /// # Errors
    /// Why not.
    fn act(&self, wish: &Wish, who: &str, from: Option<IpAddr>) -> Result<(), Refusal>;
    /// How this node stands.
    fn standing(&self) -> SeatStanding;
    /// Services that failed at the other node are about to be handed over to this one.
    ///
    /// # Errors
    /// Why that must not be.
    fn services_move(&self) -> Result<(), Refusal>;
    /// Answers of the settings of the pair; may take its time.
    fn settings(&self, asked: Asked) -> Said;
}

/// Sends a word to the other node; may be lost.
pub(crate) type SendWord = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The words between the nodes.
pub(crate) struct Words {
    send: SendWord,
    /// For what nobody else is to read; until there is one nothing of the kind is said.
    seal: OnceLock<Seal>,
    waiting: Mutex<HashMap<u64, SyncSender<Answer>>>,
    /// What was asked lately, with the answer once there is one.
    asked: Mutex<VecDeque<(u64, Option<Answer>)>>,
    /// Questions that are being answered, each on a thread.
    answering: AtomicUsize,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").finish_non_exhaustive()
    }
}

impl Words {
    pub(crate) fn new(send: SendWord) -> Self {
        let seal = OnceLock::new();
        let (waiting, asked) = (Mutex::default(), Mutex::default());
        Self { send, seal, waiting, asked, answering: AtomicUsize::new(0) }
    }

    /// Takes in a word of the other node. Never blocks: what takes its time is done on a thread.
    pub(crate) fn hear(self: &Arc<Self>, bytes: &[u8], answering: &Arc<dyn Answering>) {
        match serde_json::from_slice(bytes) {
            Ok(Word::Answer { id, what }) => {
                if let Some(waiting) = lock(&self.waiting).get(&id) {
                    // Answered before, or nobody waits any longer.
                    waiting.try_send(what).ok();
                }
            }
            Ok(Word::Ask { id, what }) => {
                let known = lock(&self.asked).iter().find(|(asked, _)| *asked == id).cloned();
                match known {
                    Some((_, Some(answer))) => self.say(&Word::Answer { id, what: answer }),
                    Some((_, None)) => {}
                    None => self.begin(id, what, answering),
                }
            }
            Err(error) => tracing::warn!(%error, "a word of the other node is not understood"),
        }
    }

    fn begin(self: &Arc<Self>, id: u64, what: Ask, answering: &Arc<dyn Answering>) {
        // What is not begun is said again by who asks.
        if self.answering.fetch_add(1, Ordering::AcqRel) >= ANSWERED_MAX {
            self.answering.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let mut asked = lock(&self.asked);
        asked.push_back((id, None));
        if asked.len() > REMEMBERED {
            asked.pop_front();
        }
        drop(asked);
        let (words, answering) = (Arc::clone(self), Arc::clone(answering));
        let begun = std::thread::Builder::new().name("duolog-words".into()).spawn(move || {
            let what = match what {
                Ask::Standing => Answer::Standing(shortened(&answering.standing())),
                Ask::ServicesMove => match answering.services_move() {
                    Ok(()) => Answer::Begun,
                    Err(why) => Answer::Refused(why),
                },
                Ask::Settings(sealed) => words
                    .open(&sealed)
                    .and_then(|asked| words.close(&answering.settings(asked)))
                    .map_or(Answer::Nothing, Answer::Settings),
                Ask::Act { wish, who, from } => {
                    tracing::info!(wish = wish.name(), who, ?from, "asked for at the other node");
                    match answering.act(&wish, &who, from) {
                        Ok(()) => Answer::Begun,
                        Err(Refusal::State { state, sentence }) => {
                            let sentence = short(&sentence).to_owned();
                            Answer::Refused(Refusal::State { state, sentence })
                        }
                        Err(why) => Answer::Refused(why),
                    }
                }
            };
            let mut asked = lock(&words.asked);
            if let Some((_, answer)) = asked.iter_mut().find(|(asked, _)| *asked == id) {
                *answer = Some(what.clone());
            }
            drop(asked);
            words.answering.fetch_sub(1, Ordering::AcqRel);
            words.say(&Word::Answer { id, what });
        });
        if let Err(error) = begun {
            self.answering.fetch_sub(1, Ordering::AcqRel);
            tracing::error!(%error, "a word of the other node is not answered");
        }
    }

    fn say(&self, word: &Word) {
        match serde_json::to_vec(word) {
            Ok(bytes) if bytes.len() <= WORD_MAX => (self.send)(&bytes),
            Ok(bytes) => tracing::error!(bytes = bytes.len(), "too long for a word"),
            Err(error) => tracing::error!(%error, "not to be said"),
        }
    }

    /// Asks, and waits for the answer; nothing when none comes.
    fn ask(&self, what: Ask, patience: Duration) -> Option<Answer> {
        // Two runs of a node must not give two questions one number.
        let id = RandomState::new().build_hasher().finish();
        let (heard, answer) = sync_channel(1);
        lock(&self.waiting).insert(id, heard);
        let word = Word::Ask { id, what };
        let until = Instant::now() + patience;
        let mut came = None;
        while came.is_none() && Instant::now() < until {
            self.say(&word);
            came = answer.recv_timeout(AGAIN).ok();
        }
        lock(&self.waiting).remove(&id);
        came
    }
}

/// The other node, reached by words.
#[derive(Debug)]
pub(crate) struct OtherNode {
    node: NodeId,
    words: Arc<Words>,
    patience: Duration,
    /// Where the user of the console asks from who acts; nothing: an operator here.
    from: Option<IpAddr>,
}

impl OtherNode {
    pub(crate) fn new(node: NodeId, words: Arc<Words>) -> Self {
        Self { node, words, patience: PATIENCE, from: None }
    }

    /// As a user of the console here acts on it, who asks from that address.
    pub(crate) fn of_console(self, from: IpAddr) -> Self {
        Self { from: Some(from), ..self }
    }

    /// Asks it how it stands, and waits so long for the answer.
    pub(crate) fn standing_within(&self, patience: Duration) -> Option<SeatStanding> {
        match self.words.ask(Ask::Standing, patience) {
            Some(Answer::Standing(standing)) => Some(standing),
            Some(_) | None => None,
        }
    }

    /// Tells it that services which failed here are about to be handed over to it.
    ///
    /// # Errors
    /// It refuses, or cannot be asked.
    pub(crate) fn services_move(&self) -> Result<(), ActError> {
        match self.words.ask(Ask::ServicesMove, self.patience) {
            Some(Answer::Begun) => Ok(()),
            Some(Answer::Refused(why)) => Err(ActError::Refused { node: self.node.number(), why }),
            Some(_) | None => Err(self.unreachable()),
        }
    }

    fn unreachable(&self) -> ActError {
        ActError::Unreachable { node: self.node.number() }
    }
}

impl Seat for OtherNode {
    fn node(&self) -> NodeId {
        self.node
    }

    fn act(&self, wish: &Wish, who: &str) -> Result<(), ActError> {
        let ask = Ask::Act { wish: wish.clone(), who: who.to_owned(), from: self.from };
        match self.words.ask(ask, self.patience) {
            Some(Answer::Begun) => Ok(()),
            Some(Answer::Refused(why)) => Err(ActError::Refused { node: self.node.number(), why }),
            Some(_) | None => Err(self.unreachable()),
        }
    }

    fn standing(&self) -> Result<SeatStanding, ActError> {
        match self.words.ask(Ask::Standing, self.patience) {
            Some(Answer::Standing(standing)) => Ok(standing),
            Some(_) | None => Err(self.unreachable()),
        }
    }
}

fn shortened(standing: &SeatStanding) -> SeatStanding {
    SeatStanding { sentence: short(&standing.sentence).to_owned(), ..standing.clone() }
}

/// What of a sentence fits a word.
fn short(sentence: &str) -> &str {
    &sentence[..sentence.floor_char_boundary(SENTENCE_MAX)]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::said::Ways;
    use crate::status::{DataSync, State};
    use duolog_beat::Secret;
    use duolog_wal::ClusterId;

    type Place = Arc<OnceLock<Arc<Words>>>;

    struct Node {
        acted: AtomicUsize,
        from: Option<IpAddr>,
    }

    impl Answering for Node {
        fn act(&self, wish: &Wish, who: &str, from: Option<IpAddr>) -> Result<(), Refusal> {
            assert_eq!((who, from), ("operator", self.from));
            self.acted.fetch_add(1, Ordering::SeqCst);
            if *wish == Wish::Swap { Err(Refusal::PeerNotUptodate) } else { Ok(()) }
        }

        fn standing(&self) -> SeatStanding {
            let sentence = "ä".repeat(1000);
            let (state, data_sync) = (State::Wait, DataSync::NotUptodate);
            SeatStanding { state, sentence, data_sync, serves: false }
        }

        fn services_move(&self) -> Result<(), Refusal> {
            match self.acted.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(()),
                _ => Err(Refusal::FailedOverLately),
            }
        }

        fn settings(&self, asked: Asked) -> Said {
            assert!(matches!(asked, Asked::Piece { from: 7, .. }), "{asked:?}");
            Said::NotHere
        }
    }

    /// Two ends whose words are said twice, and lost at first.
    fn ends(lost: usize) -> (Arc<Words>, Arc<Node>) {
        let (here, there) = (Place::default(), Place::default());
        let node = Arc::new(Node { acted: AtomicUsize::new(0), from: None });
        let way = |to: &Place, lost: usize| -> SendWord {
            let (to, node, said) = (to.clone(), node.clone(), AtomicUsize::new(0));
            Box::new(move |bytes| {
                let answering: Arc<dyn Answering> = node.clone();
                if said.fetch_add(1, Ordering::SeqCst) >= lost {
                    to.get().unwrap().hear(bytes, &answering);
                    to.get().unwrap().hear(bytes, &answering);
                }
            })
        };
        here.set(Arc::new(Words::new(way(&there, lost)))).unwrap();
        there.set(Arc::new(Words::new(way(&here, lost)))).unwrap();
        let secret = Secret::generate().unwrap();
        for end in [&here, &there] {
            end.get().unwrap().seal_with(secret.seal(ClusterId(1)));
        }
        (here.get().unwrap().clone(), node)
    }

    #[test]
    fn a_word_that_is_lost_and_repeated_is_carried_out_once() {
        let (words, node) = ends(2);
        let other = OtherNode::new(NodeId::Node2, words);
        other.act(&Wish::Stop, "operator").unwrap();
        assert_eq!(node.acted.load(Ordering::SeqCst), 1);
        let refused = other.act(&Wish::Swap, "operator").unwrap_err();
        assert_eq!(refused, ActError::Refused { node: 2, why: Refusal::PeerNotUptodate });
        assert_eq!(node.acted.load(Ordering::SeqCst), 2);
        let standing = other.standing().unwrap();
        assert_eq!((standing.state, standing.sentence.len()), (State::Wait, SENTENCE_MAX));
    }

    /// What is said of settings reads like noise to others, and like itself to the other node.
    #[test]
    fn what_is_said_of_settings_is_sealed() {
        let (words, _) = ends(2);
        let asked = || {
            let name = crate::document::Name { version: 3, node: 1, hash: "secret".into() };
            Asked::Piece { name, from: 7 }
        };
        let other = OtherNode::new(NodeId::Node2, words.clone());
        assert_eq!(Ways::ask(&other, asked(), Duration::from_secs(5)), Some(Said::NotHere));
        let said = Ask::Settings(words.close(&asked()).unwrap());
        assert!(!serde_json::to_string(&said).unwrap().contains("secret"));
    }

    #[test]
    fn the_other_node_says_whether_services_may_be_handed_over() {
        let (words, node) = ends(2);
        let other = OtherNode::new(NodeId::Node2, words);
        other.services_move().unwrap();
        assert_eq!(node.acted.load(Ordering::SeqCst), 1);
        let refused = other.services_move().unwrap_err();
        assert_eq!(refused, ActError::Refused { node: 2, why: Refusal::FailedOverLately });
    }

    #[test]
    fn a_node_that_does_not_answer_is_not_said_to_have_done_anything() {
        let (words, node) = ends(usize::MAX);
        let mut other = OtherNode::new(NodeId::Node2, words);
        other.patience = Duration::from_millis(10);
        let error = other.act(&Wish::Stop, "operator").unwrap_err();
        assert_eq!(error, ActError::Unreachable { node: 2 });
        assert!(other.standing().is_err());
        assert_eq!(node.acted.load(Ordering::SeqCst), 0);
    }

    /// The longest that can be said fits one datagram.
    #[test]
    fn the_longest_words_fit() {
        let reason = "\"".repeat(crate::actions::REASON_MAX);
        let who = "w".repeat(crate::actions::WHO_MAX);
        let wish = Wish::SwapWithoutSync { reason };
        let from = Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        let ask = Word::Ask { id: u64::MAX, what: Ask::Act { wish, who, from } };
        assert!(serde_json::to_vec(&ask).unwrap().len() <= WORD_MAX);
        let sentence = "\"".repeat(SENTENCE_MAX);
        let standing = SeatStanding {
            state: State::Second,
            sentence,
            data_sync: DataSync::ConnectionError,
            serves: false,
        };
        let answer = Word::Answer { id: u64::MAX, what: Answer::Standing(standing) };
        assert!(serde_json::to_vec(&answer).unwrap().len() <= WORD_MAX);
        let (words, _) = ends(0);
        for (asked, said) in crate::document::said::longest() {
            let (asked, said) = (words.close(&asked).unwrap(), words.close(&said).unwrap());
            let ask = Word::Ask { id: u64::MAX, what: Ask::Settings(asked) };
            let answer = Word::Answer { id: u64::MAX, what: Answer::Settings(said) };
            for word in [ask, answer] {
                let len = serde_json::to_vec(&word).unwrap().len();
                assert!(len <= WORD_MAX, "{len} bytes: {word:?}");
            }
        }
    }
}
