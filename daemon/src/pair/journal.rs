//! What an operator will ask about later, said in the log at the moment it happens and, where it
//! is more than a change of state, kept with the receipts.

use duolog_console::api::records::Happened;
use duolog_failover::{Colour, Note};

use crate::logs::STATE;

/// Says a note in the log; returns what of it is to be kept.
pub(super) fn say(note: &Note, colour: Colour) -> Option<Happened> {
    match note {
        Note::Changed { from, to, sentence } => {
            let (from, to) = (from.name(), to.name());
            if colour == Colour::Red {
                tracing::warn!(target: STATE, from, to, "{sentence}");
            } else {
                tracing::info!(target: STATE, from, to, "{sentence}");
            }
            None
        }
        Note::Stalled { acked, ms } => {
            tracing::warn!(
                acked = %acked, ms,
                "the other node answers heartbeats and does not acknowledge: it counts as lost"
            );
            Some(Happened::Stalled { acknowledged_lsn: acked.0, waited_ms: *ms })
        }
        Note::SplitBrain { fork, here, there, winner } => {
            let winner = winner.map(|winner| winner.to_string());
            tracing::error!(
                fork = ?fork.map(|lsn| lsn.0), here = %here, there = %there,
                winner = winner.as_deref().unwrap_or("nobody yet"),
                "SPLIT BRAIN: both nodes served on their own"
            );
            Some(Happened::SplitBrain {
                fork_lsn: fork.map(|lsn| lsn.0),
                here_lsn: here.0,
                there_lsn: there.0,
                winner,
            })
        }
        Note::Forced(forced) => {
            tracing::warn!(who = forced.who, reason = forced.reason, "an operator forced it");
            Some(Happened::Forced { who: forced.who.clone(), reason: forced.reason.clone() })
        }
        Note::Overruled { view } => {
            tracing::error!(
                view = view.num.0,
                "an operator forced the other node: nothing is acknowledged here any more; what \
                 this node acknowledged since the two parted will stand in a branch"
            );
            Some(Happened::Overruled { view: view.num.0 })
        }
        Note::Witness { from, to } => {
            let (from, to) = (format!("{from:032x}"), format!("{to:032x}"));
            tracing::warn!(from, to, "another witness is named from now on");
            Some(Happened::Witness { from, to })
        }
    }
}
