//! Why the machine is where it is, and the sentence that says so.

use super::{Machine, Mode, Services, Stopped, Timer};
use crate::effect::CommitRule;
use crate::table::Why;
use crate::{DataSync, Promotion, Standing, State};

impl Machine {
    /// Whether the other node could take over what this one serves, were it to end now: it is up to
    /// date and takes part, an operator allows it, and so does the witness, where there is one.
    pub fn has_heir(&self) -> bool {
        self.is_primary()
            && self.peer_takes_part()
            && self.peer_stands_by()
            && !self.peer.stalled
            && self.settings.failover
            && !self.maintenance
            && self.peer_allows_takeover()
            && (self.register.conf.witness == 0 || self.witness.here)
    }

    /// How the node stands.
    pub fn standing(&self) -> Standing {
        let sentence = self
            .why
            .sentence()
            .replace("{peer}", &self.me.peer().to_string())
            .replace("{view}", &self.register.conf.num.0.to_string())
            .replace("{pend}", &self.register.cur().num.0.to_string())
            .replace("{cause}", self.cause())
            .replace("{link}", &self.link_error());
        let (state, colour) = (self.why.state(), self.why.colour());
        Standing { state, sentence, sync: self.sync(), colour }
    }

    /// Why it is in that state.
    pub const fn why(&self) -> Why {
        self.why
    }

    /// Why this node was promoted last in this incarnation.
    pub const fn promotion(&self) -> Option<Promotion> {
        self.promotion
    }

    fn cause(&self) -> &str {
        match &self.mode {
            Mode::Stopped(
                Stopped::Services(cause) | Stopped::Disk(cause) | Stopped::NotFenced(cause),
            ) => cause,
            _ => "",
        }
    }

    fn link_error(&self) -> String {
        match &self.peer.link_error {
            Some(why) if self.peer.link.is_none() => format!(" ({why})"),
            _ => String::new(),
        }
    }

    fn sync(&self) -> DataSync {
        if !self.settings.peer {
            return DataSync::NotConfigured;
        }
        let connected = self.peer.link.is_some();
        let both = match self.begun {
            // What is shown as up to date can be swapped.
            Some(_) => matches!(self.said.commit, CommitRule::Pair { .. }) && self.peer_stands_by(),
            None => self.register.member(self.me) && self.log.complete,
        };
        match (connected, both) {
            (false, _) => DataSync::ConnectionError,
            (true, true) => DataSync::Uptodate,
            (true, false) => DataSync::NotUptodate,
        }
    }

    pub(super) fn find_why(&self) -> Why {
        match self.services {
            Services::Stopping(_) if !self.not_fenced() => return Why::StopsServices,
            _ => {}
        }
        match &self.mode {
            Mode::Stopped(Stopped::NotStarted) => return Why::NotStarted,
            Mode::Stopped(Stopped::Operator) => return Why::Stopped,
            Mode::Stopped(Stopped::Services(_)) => return Why::ServicesFailed,
            Mode::Stopped(Stopped::Disk(_)) => return Why::DiskFailed,
            Mode::Stopped(Stopped::NotFenced(_)) => return Why::NotFenced,
            Mode::Stopped(Stopped::TakenOver) => return Why::TakenOver,
            Mode::Work => {}
        }
        if self.split.is_some() {
            return Why::SplitBrain;
        }
        match self.services {
            Services::Up => self.why_serving(),
            Services::Starting(_) => Why::StartsServices,
            _ if self.is_primary() && self.register.conf.num.0 > 0 => self.why_not_serving(),
            _ => self.why_following(),
        }
    }

    const fn not_fenced(&self) -> bool {
        matches!(self.mode, Mode::Stopped(Stopped::NotFenced(_)))
    }

    fn why_serving(&self) -> Why {
        if let Some(pend) = self.register.pend
            && self.peer.here
            && !pend.forced
        {
            return Why::CommitsWaitForView;
        }
        if self.register.conf.pair || self.register.pend.is_some() {
            return match () {
                () if !self.peer_takes_part() => Why::CommitsWait,
                () if self.peer.stalled || self.peer.link.is_none() => Why::CommitsStall,
                () => Why::Pair,
            };
        }
        match () {
            () if !self.settings.peer => Why::NoPeer,
            () if self.peer.link.is_none() => Why::Alone,
            () if self.peer.caught_up && !self.witness.here && self.register.conf.witness != 0 => {
                Why::AloneNoWitness
            }
            () => Why::AloneFollowed,
        }
    }

    /// A primary that does not serve.
    fn why_not_serving(&self) -> Why {
        let swap = self.register.pend.is_some_and(|pend| pend.primary != self.me);
        match () {
            () if swap && self.peer.here && !self.overdue => Why::SwapsOut,
            () if !self.log.complete && self.log_known => Why::NotComplete,
            () if self.forced_elsewhere().is_some() => Why::Overruled,
            () if self.leads_chosen() => Why::StartsServices,
            () if self.asking.is_some() => self.why_asking(),
            () if !self.heard_of_peer() && self.timers.is_set(Timer::PeerLost) => Why::Starts,
            () if !self.peer_takes_part() => Why::WaitsForPeer,
            () if self.accepted_here => Why::SwapsIn,
            () => Why::RePairs,
        }
    }

    fn why_asking(&self) -> Why {
        match () {
            () if self.witness.newer => Why::Refused,
            () if self.register.conf.witness == 0 => Why::Asks,
            () if !self.witness.here => Why::NoWitness,
            () if self.witness.wid != self.register.conf.witness => Why::OtherWitness,
            () => Why::Asks,
        }
    }

    fn heard_of_peer(&self) -> bool {
        self.peer.beat.is_some()
    }

    fn why_following(&self) -> Why {
        let conf = self.register.conf;
        let connected = self.peer.link.is_some() && self.follows();
        if conf.num.0 == 0 {
            return Why::NoMember;
        }
        if !self.register.member(self.me) {
            return if connected { Why::CatchesUp } else { Why::NoConnection };
        }
        if !self.log.complete && self.log_known {
            return Why::NotComplete;
        }
        match () {
            () if !self.heard_of_peer() && !self.expired => Why::Starts,
            () if self.expired || !self.peer.here => self.why_primary_lost(),
            () if connected => Why::InStep,
            () => Why::Lags,
        }
    }

    fn why_primary_lost(&self) -> Why {
        let off = !self.settings.failover || self.maintenance;
        match () {
            () if off => Why::TakeoverOff,
            () if self.register.conf.witness == 0 && !self.met => Why::WaitsForPeer,
            () if self.asking.is_some() => match self.why_asking() {
                Why::Asks => Why::PrimaryLost,
                other => other,
            },
            () => Why::PrimaryLost,
        }
    }
}

impl Standing {
    /// Whether a service manager may call the node ready.
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Prim | State::Alone | State::Second)
    }
}
