//! Who asks, and how that became known.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a user may do. Each may do what the ones before it may, but for `metrics`, who may read
/// metrics and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads `/metrics`.
    Metrics,
    /// Looks.
    Viewer,
    /// Starts, stops and swaps.
    Operator,
    /// Everything else, too.
    Administrator,
}

impl Role {
    /// All of them, as people are told of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Administrator, Self::Metrics];

    /// As the settings of the pair name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a user showed who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// By a password.
    Password,
    /// By a certificate of the pair.
    Certificate,
}

/// A name and a password.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password.
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A user who is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The user.
    pub name: String,
    /// What they may do, as the settings of the pair say now.
    pub role: Role,
    /// How they logged in.
    pub by: By,
    /// To be sent as the header `Duolog-Csrf` with everything that is not a GET.
    pub csrf: String,
    /// When the session ends if nothing is asked any more, in seconds from now. An open stream of
    /// events asks nothing.
    pub idle_s: u64,
    /// When it ends in any case, in seconds from now.
    pub left_s: u64,
}

/// A user whose certificate came with the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offered {
    /// The user.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// Who asks. Strangers are told this, too, so there is nothing in it but what the log-in page needs: names
/// and versions come after log-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// The session; nothing before log-in.
    pub session: Option<Session>,
    /// The user whose certificate the browser showed: they can log in without a password.
    pub certificate: Option<Offered>,
    /// The browser showed a certificate of this pair that counts for nobody: it was revoked, or its user
    /// was removed.
    pub certificate_refused: bool,
    /// Whether the connection is encrypted. Where it is not, the page says so all the time.
    pub encrypted: bool,
    /// Whether any user has a password or a certificate; otherwise one is to be made with
    /// `duolog users add`.
    pub users: bool,
    /// The node that answers, 1 or 2.
    pub node: u8,
}

/// Why a stream of events ends for good. The document of the event `over`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Nobody asked for too long, or the session is too old.
    Expired,
    /// The user logged out.
    LoggedOut,
    /// The user was removed, or may not look any more.
    Refused,
}

/// See [`Over`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionOver {
    /// Why.
    pub why: Over,
}
