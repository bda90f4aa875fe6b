//! Faults that are planted to see whether a run notices them. They change what surrounds the
//! machines, never the machines: the shell, the witness, the guardian, the disk.

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// The follower acknowledges before its fdatasync.
    AckBeforeSync,
    /// The primary does not wait for the follower's disk.
    CommitWithoutPeer,
    /// An acknowledgement counts for whatever view the primary is in.
    AckOfAnyView,
    /// The witness compares numbers alone: it believes that each request builds on the newest view.
    GrantWithoutBase,
    /// The witness comes back blank, with the identity that it had.
    BlankWitness,
    /// The register is not written before what depends on it is done.
    RegisterNotWritten,
    /// The guardian does not fence when the lease ends.
    NoFence,
    /// Services start without waiting for the log to be committed.
    StartAtOnce,
    /// A follower that lacks part of the directory says that its copy is whole.
    Incomplete,
    /// A tail is cut off and not kept.
    TailThrownAway,
}

impl Plant {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::AckBeforeSync,
        Self::CommitWithoutPeer,
        Self::AckOfAnyView,
        Self::GrantWithoutBase,
        Self::BlankWitness,
        Self::RegisterNotWritten,
        Self::NoFence,
        Self::StartAtOnce,
        Self::Incomplete,
        Self::TailThrownAway,
    ];

    /// As it is named on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| format!("{plant:?}") == name)
    }
}
