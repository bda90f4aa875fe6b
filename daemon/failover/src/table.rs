//! The states of a node, why it is in them, and how it gets from one to another: one table that
//! the machine's sentences, `docs/states.md` and the tests read.

use std::fmt::Write as _;

use crate::{Colour, State};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident: $state:ident $colour:ident $sentence:literal;)*) => {
        /// Why a node is in its state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Why {
            $($(#[doc = $doc])* $name,)*
        }

        impl Why {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The state.
            pub const fn state(self) -> State {
                match self { $(Self::$name => State::$state,)* }
            }

            /// Its colour.
            pub const fn colour(self) -> Colour {
                match self { $(Self::$name => Colour::$colour,)* }
            }

            /// The operator's sentence. `{peer}` is the other node, `{cause}` what was reported,
            /// `{view}` the number of the chosen view, `{link}` why there is no connection.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    /// Start at boot is off.
    NotStarted: Stop Red "not started: start at boot is off; start this node";
    /// Stopped by an operator.
    Stopped: Stop Red "stopped by an operator; start this node";
    /// Services failed.
    ServicesFailed: Stop Red "services failed: {cause}; mend it and start this node";
    /// The disk failed.
    DiskFailed: Stop Red
        "cannot write: {cause}; mend it and restart the daemon, which reads everything back";
    /// Something outlived its fence.
    NotFenced: Stop Red "something still runs here that must not: {cause}; end it and stop again, or reboot";
    /// Another node took over.
    TakenOver: Stop Red "{peer} took over while this node could not be sure to serve; start this node to follow";
    /// Just started.
    Starts: Wait Magenta "starts: looks for {peer}";
    /// Member of no view.
    NoMember: Wait Red "belongs to no view yet: waits for {peer} to serve";
    /// Follows and is not up to date.
    CatchesUp: Wait Magenta "not uptodate: takes the log and what changed from {peer}";
    /// Would follow, and is not connected.
    NoConnection: Wait Red "not uptodate: waits for a connection to {peer}{link}";
    /// The copy is not whole.
    NotComplete: Wait Red "its copy is not whole: waits for {peer} to go on with the resynchronisation";
    /// A primary that is bringing its peer to its own log.
    RePairs: Wait Magenta "waits for {peer} to have the same log before it serves";
    /// Asks the witness.
    Asks: Wait Magenta "{peer} is not heard: asks the witness whether this node may go on alone";
    /// The witness does not answer.
    NoWitness: Wait Red
        "{peer} is not heard and the witness does not answer: waits for either, or for a forced start";
    /// The witness knows a newer view.
    Refused: Wait Red
        "the witness knows that {peer} may have gone on: waits for {peer}, or for a forced start";
    /// An operator forced the other node.
    Overruled: Wait Red
        "an operator forced {peer}: nothing is acknowledged here any more; waits for {peer}, or for a forced start of this node";
    /// The witness was replaced while this node was not alone.
    OtherWitness: Wait Red "another witness answers than the one view {view} names: waits for {peer}, or for a forced start";
    /// Without a witness: cut off, or started without the peer.
    WaitsForPeer: Wait Red "cannot know whether {peer} went on: waits for {peer}, or for a forced start";
    /// Handed over, waits for the other to have it.
    SwapsIn: Wait Magenta "swaps: waits for {peer} to hand over";
    /// Hands over.
    SwapsOut: Wait Magenta "swaps: services stopped, {peer} takes the rest of the log";
    /// Finishes applying, mounts, starts services.
    StartsServices: Wait Magenta "finishes applying the log, mounts and starts services";
    /// Stops services.
    StopsServices: Wait Magenta "stops services";
    /// Split brain, nothing decided yet.
    SplitBrain: Wait Red
        "split brain: {peer} went on alone too; nothing is acknowledged until it is decided who goes on";
    /// Serves with the peer.
    Pair: Prim Green "every commit is on both nodes; {peer} confirms each";
    /// Serves, waits for the peer.
    CommitsWait: Prim Magenta "commits wait: {peer} is not heard{link}";
    /// Serves, waits for the peer to acknowledge.
    CommitsStall: Prim Magenta "commits wait: {peer} is heard and does not acknowledge{link}";
    /// Serves, with a proposal open.
    CommitsWaitForView: Prim Magenta "commits wait for {peer} to accept view {pend}";
    /// Receives the log as a member.
    InStep: Second Green "has every commit, receives the log from {peer}";
    /// A member without a connection.
    Lags: Second Magenta "has every commit, waits for a connection to {peer}{link}";
    /// A member whose primary is not heard.
    PrimaryLost: Second Red "{peer} is not heard: takes over once that is allowed";
    /// The same, with takeover off.
    TakeoverOff: Second Red "{peer} is not heard, and automatic takeover is off or in maintenance: force a start if it shall not wait";
    /// Serves alone.
    Alone: Alone Warning "serves without a second copy: {peer} is not connected{link}";
    /// Serves alone, with nobody else configured.
    NoPeer: Alone Warning "serves without a second copy: no other node is configured";
    /// Serves alone, the other follows.
    AloneFollowed: Alone Warning "serves without a second copy: {peer} catches up";
    /// The other is up to date, the witness silent.
    AloneNoWitness: Alone Warning
        "serves without a second copy: {peer} has caught up and waits for the witness to answer";
}

/// The ways to one reason for a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// From any of these states.
    pub from: &'static [State],
    /// To this state, for this reason.
    pub to: Why,
    /// On what.
    pub on: &'static str,
}

const fn row(from: &'static [State], to: Why, on: &'static str) -> Row {
    Row { from, to, on }
}

/// Every way there is between two different states.
pub const TABLE: &[Row] = &{
    use State::{Alone, Prim, Second, Stop, Wait};
    [
        row(&[Wait, Second], Why::Stopped, "an operator stops it, and nothing runs here any more"),
        row(
            &[Wait],
            Why::ServicesFailed,
            "a service failed for good, and nothing runs here any more",
        ),
        row(&[Wait, Second], Why::DiskFailed, "log, register or directories could not be written"),
        row(&[Wait], Why::NotFenced, "services could be ended neither in order nor by force"),
        row(
            &[Wait],
            Why::TakenOver,
            "the other is heard in a newer view of its own, and auto_rejoin is off",
        ),
        row(
            &[Stop, Second],
            Why::Starts,
            "an operator starts it, or it accepts what it is handed before it has heard the other",
        ),
        row(
            &[Stop, Second],
            Why::NoMember,
            "an operator starts a node that was never part of a view, or a member is told of a pair that it has forgotten",
        ),
        row(&[Stop, Second], Why::CatchesUp, "the other went on alone and this node follows it"),
        row(&[Stop, Second], Why::NoConnection, "the other went on alone and is not connected"),
        row(&[Stop, Second], Why::NotComplete, "a resynchronisation is half done"),
        row(
            &[Stop, Second, Prim, Alone],
            Why::RePairs,
            "a primary was restarted and the other is heard; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Second, Prim, Alone],
            Why::Asks,
            "a member of the view hears nobody and asks; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Second, Prim, Alone],
            Why::NoWitness,
            "a member of the view hears nobody, the witness neither; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Second, Prim, Alone],
            Why::Refused,
            "the witness knows a newer view; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Second, Prim, Alone],
            Why::Overruled,
            "the witness or the other tells that the other was forced; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Second, Prim, Alone],
            Why::OtherWitness,
            "another witness answers than the one the view names; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Second, Prim, Alone],
            Why::WaitsForPeer,
            "nobody can tell whether the other went on; from PRIM and ALONE when the guardian fenced",
        ),
        row(&[Stop, Second], Why::SwapsIn, "the other handed over and has not confirmed it yet"),
        row(&[Stop], Why::SwapsOut, "an operator starts a node that was handing over"),
        row(
            &[Stop, Second, Prim, Alone],
            Why::StartsServices,
            "promoted: granted, swapped, forced, or only member; from PRIM and ALONE when the guardian fenced",
        ),
        row(
            &[Stop, Prim, Alone],
            Why::StopsServices,
            "an operator's stop, restart or swap; a failure; the lease is over; a newer view is heard, or that the other was forced",
        ),
        row(&[Stop], Why::SplitBrain, "both are heard to have gone on alone"),
        row(&[Wait, Alone], Why::Pair, "services run and the other has accepted the view"),
        row(
            &[Wait, Alone],
            Why::CommitsWait,
            "services run in a view of both, and the other falls silent",
        ),
        row(
            &[Wait, Alone],
            Why::CommitsStall,
            "services run in a view of both, and the other does not acknowledge",
        ),
        row(
            &[Wait, Alone],
            Why::CommitsWaitForView,
            "the other has caught up and a view of both is proposed",
        ),
        row(
            &[Stop, Wait],
            Why::InStep,
            "the log is equal and the view accepted, or the primary's connection is back",
        ),
        row(&[Stop, Wait], Why::Lags, "the primary of its view is heard, and not connected"),
        row(&[Stop, Wait], Why::PrimaryLost, "a member hears nothing of the primary"),
        row(
            &[Stop, Wait],
            Why::TakeoverOff,
            "a member hears nothing of the primary and may not take over by itself",
        ),
        row(&[Wait, Prim], Why::Alone, "services run, and this node alone is the view"),
        row(&[Wait, Prim], Why::NoPeer, "services run, and no other node is configured"),
        row(&[Wait, Prim], Why::AloneFollowed, "services run alone, and the other follows"),
        row(
            &[Wait, Prim],
            Why::AloneNoWitness,
            "the other has caught up while the witness is silent",
        ),
    ]
};

/// Whether the table knows the way.
pub fn knows(from: State, to: Why) -> bool {
    from == to.state() || TABLE.iter().any(|row| row.to == to && row.from.contains(&from))
}

/// `docs/states.md`.
pub fn markdown() -> String {
    let mut out = String::new();
    let mut line = |text: &str| writeln!(out, "{text}").expect("a string takes everything");
    line("# States of a node");
    line("");
    line(
        "Made from the table in `daemon/failover/src/table.rs`; a test compares the two. To write it anew:",
    );
    line("`DUOLOG_WRITE_STATES=1 cargo test -p duolog-failover --test table`.");
    line("");
    line("## What the operator reads");
    line("");
    line("| state | colour | sentence | reason |");
    line("| --- | --- | --- | --- |");
    for why in Why::ALL {
        let colour = why.colour().name();
        line(&format!("| {} | {colour} | {} | `{}` |", why.state(), why.sentence(), why.name()));
    }
    line("");
    line("## Ways from one state to another");
    line("");
    line("| from | to | reason there | on what |");
    line("| --- | --- | --- | --- |");
    for Row { from, to, on } in TABLE {
        let from: Vec<_> = from.iter().map(|state| state.name()).collect();
        line(&format!("| {} | {} | `{}` | {on} |", from.join(", "), to.state(), to.name()));
    }
    out
}
