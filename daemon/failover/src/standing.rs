//! How a node stands, in the operators' words.

/// State of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Stopped by an operator or a failure; no redundancy.
    Stop,
    /// Starting, or waiting for something that is named.
    Wait,
    /// Serves, and every commit is on both nodes.
    Prim,
    /// Receives the log.
    Second,
    /// Serves without a second copy.
    Alone,
}

/// Data synchronisation status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataSync {
    /// The second copy has everything.
    Uptodate,
    /// It lacks something, or may.
    NotUptodate,
    /// The nodes are not connected.
    ConnectionError,
    /// There is no second node.
    NotConfigured,
}

/// Colour of a state; never its only sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Colour {
    /// As it should be.
    Green,
    /// Serves, with a warning.
    Warning,
    /// On its way.
    Magenta,
    /// Somebody must look.
    Red,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// State.
    pub state: State,
    /// What it does or waits for, as a sentence for the operator.
    pub sentence: String,
    /// Data synchronisation status.
    pub sync: DataSync,
    /// Colour.
    pub colour: Colour,
}

impl State {
    /// As operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Alone => "ALONE",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Colour {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Warning => "green, warning",
            Self::Magenta => "magenta",
            Self::Red => "red",
        }
    }
}

impl DataSync {
    /// As operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uptodate => "uptodate",
            Self::NotUptodate => "not uptodate",
            Self::ConnectionError => "connection error",
            Self::NotConfigured => "not configured",
        }
    }
}

impl std::fmt::Display for DataSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
