//! This node as operators act on it: their wishes become the machine's actions, its answers words.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use duolog_beat::now;
use duolog_failover::{Action, Forced, Refused};
use duolog_wal::NodeId;

use super::Input;
use super::checks::Moves;
use super::driver::Shown;
use super::kept::Kept;
use super::served::Served;
use super::standing::{state, sync};
use crate::actions::words::Answering;
use crate::actions::{ActError, Refusal, Seat, SeatStanding, Wish};
use crate::document::Documents;
use crate::document::said::{Asked, Said};
use crate::logs::{By, Logs};
use crate::status::{DataSync, State};

/// This node.
#[derive(Debug)]
pub(super) struct Here {
    pub node: NodeId,
    pub inputs: Sender<Input>,
    pub shown: Arc<Mutex<Option<Shown>>>,
    pub served: Arc<OnceLock<Arc<Served>>>,
    pub moves: Arc<Moves>,
    pub documents: Arc<Documents>,
    pub logs: Logs,
    pub state_dir: PathBuf,
}

impl Here {
    fn ask(&self, action: Action) -> Option<Result<(), Refused>> {
        let (asker, answer) = sync_channel(1);
        self.inputs.send(Input::Act(action, asker)).ok()?;
        answer.recv().ok()
    }

    fn stands(&self) -> SeatStanding {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let serves = self.served.get().is_some_and(|served| served.anything());
        match shown {
            Some(Shown { standing, .. }) => SeatStanding {
                state: state(standing.state),
                sentence: standing.sentence,
                data_sync: sync(standing.sync),
                serves,
            },
            None => SeatStanding {
                state: State::Wait,
                sentence: "recovers the log".into(),
                data_sync: DataSync::ConnectionError,
                serves,
            },
        }
    }

    /// Whether the settings of the pair, as they are here, let a user of the console do that.
    fn may(&self, wish: &Wish, who: &str) -> bool {
        let user = self.documents.people().find(who).map(|user| user.role);
        user.is_some_and(|role| role >= wish.needs())
    }

    fn carry_out(&self, wish: &Wish, who: &str) -> Result<(), Refusal> {
        if matches!(wish, Wish::ErrorDetection { on: true, old_word: true }) {
            let Kept { error_detection, checkers, .. } = Kept::load(&self.state_dir);
            // It would be done, and no checker would look all the same.
            if error_detection != Some(false) && checkers == Some(false) {
                return Err(Refusal::CheckersStopped);
            }
        }
        let action = action(wish, who, self.node);
        match self.ask(action) {
            None => Err(Refusal::Ends),
            Some(Ok(())) => Ok(()),
            Some(Err(refused)) => {
                let stands = self.stands();
                Err(Refusal::of(&refused, stands.state, &stands.sentence))
            }
        }
    }
}

impl Answering for Here {
    fn act(&self, wish: &Wish, who: &str, from: Option<IpAddr>) -> Result<(), Refusal> {
        let other = self.node.peer().number();
        let by = match from {
            Some(from) => By::console_of(other, who, from),
            None => By::at_node(other, who),
        };
        let running = self.logs.action(by, wish.name(), &wish.arguments(), wish.reason());
        let begun = match from {
            _ if self.documents.other_is_revoked() => Err(Refusal::Revoked),
            Some(_) if !self.may(wish, who) => {
                Err(Refusal::Role { needs: wish.needs().name().into() })
            }
            _ => self.carry_out(wish, who),
        };
        match &begun {
            Ok(()) => running.end("begun"),
            Err(why) => running.end(&format!("refused: {why}")),
        }
        begun
    }

    fn standing(&self) -> SeatStanding {
        self.stands()
    }

    fn services_move(&self) -> Result<(), Refusal> {
        if self.documents.other_is_revoked() {
            return Err(Refusal::Revoked);
        }
        let until = self.moves.begin().ok_or(Refusal::FailedOverLately)?;
        self.inputs.send(Input::ServicesMove(until)).map_err(|_| Refusal::Ends)
    }

    fn settings(&self, asked: Asked) -> Said {
        self.documents.answer(asked)
    }
}

impl Seat for Here {
    fn node(&self) -> NodeId {
        self.node
    }

    fn act(&self, wish: &Wish, who: &str) -> Result<(), ActError> {
        let node = self.node.number();
        self.carry_out(wish, who).map_err(|why| ActError::Refused { node, why })
    }

    fn standing(&self) -> Result<SeatStanding, ActError> {
        Ok(self.stands())
    }
}

/// The machine's action for an operator's wish at node `me`.
fn action(wish: &Wish, who: &str, me: NodeId) -> Action {
    let forced = |reason: &str| Forced { who: who.to_owned(), reason: reason.to_owned() };
    match wish {
        Wish::Start { without_witness: false } => Action::Start,
        Wish::Start { without_witness: true } => Action::StartWithoutWitness,
        Wish::Stop => Action::Stop,
        Wish::Restart => Action::Restart,
        Wish::Swap => Action::Swap,
        Wish::SwapWithoutSync { reason } => Action::SwapWithoutSync(forced(reason)),
        Wish::ForceStart { reason } => Action::ForceStart(forced(reason)),
        Wish::Failover { on } => Action::Failover(*on),
        Wish::Maintenance { for_ms } => Action::Maintenance(for_ms.map(|ms| now().plus(ms))),
        Wish::StartAtBoot { on } => Action::StartAtBoot(*on),
        Wish::AutoRejoin { on } => Action::AutoRejoin(*on),
        Wish::ErrorDetection { on, .. } => Action::ErrorDetection(*on),
        Wish::Checkers { on } => Action::Checkers(*on),
        Wish::KeepWrites { reason } => Action::SplitBrain { winner: me, forced: forced(reason) },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    use duolog_failover::Kept as Change;

    use super::*;
    use crate::users::for_tests::documents;

    fn here(directory: &Path, users: &str) -> (Here, Receiver<Input>) {
        let (inputs, heard) = channel();
        let here = Here {
            node: NodeId::Node1,
            inputs,
            shown: Arc::default(),
            served: Arc::default(),
            moves: Arc::default(),
            documents: documents(directory, users),
            logs: Logs::at(directory),
            state_dir: directory.to_owned(),
        };
        (here, heard)
    }

    /// Nothing resumes there, so that it is not said to be done.
    #[test]
    fn the_old_word_for_resuming_is_refused_where_checkers_are_stopped() {
        for (error_detection, checkers, refused) in [
            (true, true, false),
            (true, false, true),
            // Then something resumes, and an alarm says what does not.
            (false, false, false),
            (false, true, false),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (here, heard) = here(directory.path(), "");
            drop(heard);
            let mut kept = Kept::default();
            kept.change(directory.path(), Change::ErrorDetection(error_detection), now()).unwrap();
            kept.change(directory.path(), Change::Checkers(checkers), now()).unwrap();
            let ask = |on, old_word| {
                Answering::act(&here, &Wish::ErrorDetection { on, old_word }, "root", None)
            };
            // What is not refused reaches the machine, which is not there any more.
            let expected = if refused { Refusal::CheckersStopped } else { Refusal::Ends };
            assert_eq!(ask(true, true), Err(expected), "{error_detection} {checkers}");
            for (on, old_word) in [(true, false), (false, true)] {
                assert_eq!(ask(on, old_word), Err(Refusal::Ends));
            }
        }
    }

    /// What the other node let pass is looked at here again, by the settings that are here.
    #[test]
    fn a_user_of_the_other_nodes_console_needs_the_role_here_too() {
        let directory = tempfile::tempdir().unwrap();
        let users = "[[user]]\nname = \"oli\"\nrole = \"operator\"\n";
        let (here, heard) = here(directory.path(), users);
        let from = Some("10.0.0.5".parse().unwrap());
        let force = Wish::ForceStart { reason: "fire".into() };
        let role = |needs: &str| Err(Refusal::Role { needs: needs.into() });
        assert_eq!(Answering::act(&here, &force, "oli", from), role("administrator"));
        assert_eq!(Answering::act(&here, &Wish::Stop, "ann", from), role("operator"));
        assert!(heard.try_recv().is_err(), "the machine heard of it");
        drop(heard);
        // What is allowed reaches the machine, which is not there any more.
        assert_eq!(Answering::act(&here, &Wish::Stop, "oli", from), Err(Refusal::Ends));
        assert_eq!(Answering::act(&here, &force, "root", None), Err(Refusal::Ends));
        here.logs.flush();
        let text = std::fs::read_to_string(directory.path().join("commands.log")).unwrap();
        assert!(text.contains("console 10.0.0.5 of node2") && text.contains("refused: "), "{text}");
    }
}
