//! Why a node does not do what an operator wants, and what would help.

use std::fmt;

use duolog_failover::Refused;
use serde::{Deserialize, Serialize};

use crate::status::State;

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// It is for the other node to do.
    OtherNode {
        /// 1 or 2.
        node: u8,
    },
    /// Not in this state.
    State {
        /// The state.
        state: State,
        /// Its sentence.
        sentence: String,
    },
    /// There is no peer that is up to date.
    PeerNotUptodate,
    /// The copy is not whole.
    NotComplete,
    /// Something else is under way.
    Busy,
    /// The reason is empty.
    NoReason,
    /// Nothing is split.
    NoSplitBrain,
    /// Its process is about to end.
    Ends,
    /// It has a role that it keeps.
    FixedRole,
    /// Services failed over already, a short time ago.
    FailedOverLately,
    /// The user's role, as the node that is asked knows it, does not suffice.
    Role {
        /// The least that would.
        needs: String,
    },
    /// It is `checkers resume`, and the checkers were stopped, not suspended.
    CheckersStopped,
    /// The keys of the node that asks were revoked.
    Revoked,
}

impl Refusal {
    /// Of a machine that is in this state.
    pub(crate) fn of(refused: &Refused, state: State, sentence: &str) -> Self {
        match refused {
            Refused::OtherNode(node) => Self::OtherNode { node: node.number() },
            Refused::State(_) => Self::State { state, sentence: sentence.to_owned() },
            Refused::PeerNotUptodate => Self::PeerNotUptodate,
            Refused::NotComplete => Self::NotComplete,
            Refused::Busy => Self::Busy,
            Refused::NoReason => Self::NoReason,
            Refused::NoSplitBrain => Self::NoSplitBrain,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherNode { node } => write!(f, "that is for node{node} to do; ask it there"),
            Self::State { state, sentence } => {
                write!(f, "it is {state} ({sentence}), and cannot do that; ")?;
                f.write_str(match state {
                    State::Stop => "mend what the sentence names, then restart duolog there",
                    State::Wait => "wait until it has what the sentence names, or stop it first",
                    State::Alone => "wait until the other node is up to date (duolog status)",
                    State::Prim | State::Second => "see duolog status for what it does now",
                })
            }
            Self::PeerNotUptodate => f.write_str(
                "the other node is not up to date; wait until duolog status says uptodate, or \
                 use swap --without-sync, which leaves behind what it lacks",
            ),
            Self::NotComplete => f.write_str(
                "its copy is not whole: a resynchronisation has not finished; let it finish, or \
                 start the node that it came from",
            ),
            Self::Busy => f.write_str(
                "something else is under way; wait until it is done (duolog status says what)",
            ),
            Self::NoReason => {
                f.write_str("the reason is empty; give one with --reason: it is recorded")
            }
            Self::NoSplitBrain => f.write_str(
                "there is no split brain to settle; duolog status says how the nodes stand",
            ),
            Self::Ends => f.write_str("its process ends at this moment; start it again"),
            Self::FailedOverLately => f.write_str(
                "services failed over between the nodes less than 10 minutes ago; mend what fails, \
                 or swap by hand",
            ),
            Self::Role { needs } => write!(
                f,
                "its settings of the pair do not say that this user is {needs}; have somebody do it \
                 who is, or see duolog users list there"
            ),
            Self::CheckersStopped => f.write_str(
                "its checkers are not suspended but stopped; start them with duolog checkers start",
            ),
            Self::Revoked => f.write_str(
                "the key of the node that asks was revoked there; have it leave and join anew",
            ),
            Self::FixedRole => f.write_str(
                "it has a fixed role; take `role` out of [node] in its configuration, give it a \
                 pair_key, and restart it",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duolog_wal::NodeId;

    /// Each refusal is a cause, a semicolon, and what would help.
    #[test]
    fn every_refusal_names_a_cause_and_a_remedy() {
        let machine = [
            Refused::OtherNode(NodeId::Node2),
            Refused::State(duolog_failover::State::Wait),
            Refused::PeerNotUptodate,
            Refused::NotComplete,
            Refused::Busy,
            Refused::NoReason,
            Refused::NoSplitBrain,
        ];
        let states = [State::Prim, State::Second, State::Alone, State::Stop, State::Wait];
        let of = |refused: &Refused| {
            states.map(|state| Refusal::of(refused, state, "stopped by an operator"))
        };
        let all = machine.iter().flat_map(of).chain([
            Refusal::Ends,
            Refusal::FixedRole,
            Refusal::FailedOverLately,
            Refusal::CheckersStopped,
            Refusal::Revoked,
            Refusal::Role { needs: "administrator".into() },
        ]);
        for refusal in all {
            let text = refusal.to_string();
            let (cause, remedy) = text.split_once("; ").unwrap();
            assert!(cause.len() > 10 && remedy.len() > 10, "{text}");
            let json = serde_json::to_string(&refusal).unwrap();
            assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), refusal);
        }
    }
}
