//! Users of the pair and its settings, as administrators see and change them. Passwords come in and never
//! go out, nor do their hashes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::session::Role;
use super::status::Stamp;

/// A user of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserEntry {
    /// The name, which certificates say too.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they have a password.
    pub password: bool,
    /// Certificates that were made for them (`duolog certs user`).
    pub certificates: u64,
    /// Whether they count: somebody who is disabled is let in by nothing.
    pub enabled: bool,
}

/// A user to be added.
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// 1 to 40 letters, digits, `-`, `_`, `.` and `@`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// 6 to 128 characters; nothing: they come with a certificate.
    pub password: Option<String>,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the password.
        f.debug_struct("NewUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is to be different about a user; one of them at a time.
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UserChange {
    /// What they may do.
    Role(Role),
    /// Their new password, 6 to 128 characters. It ends the sessions that were begun with the old one.
    Password(String),
    /// Whether they count. Who is disabled keeps role, password and certificates.
    Enabled(bool),
}

impl std::fmt::Debug for UserChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Role(role) => f.debug_tuple("Role").field(role).finish(),
            Self::Password(_) => f.write_str("Password"),
            Self::Enabled(on) => f.debug_tuple("Enabled").field(on).finish(),
        }
    }
}

/// What is to be done with the users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserEdit {
    /// One more.
    Add(NewUser),
    /// One is to be different.
    Change {
        /// Who.
        name: String,
        /// How.
        change: UserChange,
    },
    /// One less; their certificates count no more.
    Remove {
        /// Who.
        name: String,
    },
}

/// A version of the settings that a draft was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsBase {
    /// Its number.
    pub version: u64,
    /// The node that made it, 1 or 2.
    pub node: u8,
    /// The hash of its text, as its stamp says.
    pub hash: String,
}

/// Settings of the pair as somebody wants them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsDraft {
    /// The version that it was made from; nothing where there was none. Another one that counts by
    /// now is not written over: that is refused (409).
    pub base: Option<SettingsBase>,
    /// TOML, at most 32 KiB. A password that is `[set]`, as this API shows it, stays what it is.
    pub text: String,
    /// Apply it although the other node does not answer, or cannot take it; it takes it over when it can.
    #[serde(default)]
    pub here: bool,
}

/// How users are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UserQuery {
    /// Although the other node does not answer, or cannot take it; it takes it over when it can.
    #[serde(default)]
    pub here: bool,
}

/// Something that is wrong in settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsFault {
    /// In which line of the text, from 1.
    pub line: u64,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// What settings would come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsChecked {
    /// All that is wrong with them; nothing: they can be applied.
    pub faults: Vec<SettingsFault>,
    /// Keys that would take effect at once.
    pub at_once: Vec<String>,
    /// Keys that would take effect when a node is restarted.
    pub at_restart: Vec<String>,
}

/// Settings that were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsChanged {
    /// The version that counts now.
    pub stamp: Stamp,
    /// Whether the other node keeps it, too; otherwise it takes it over when they meet.
    pub both: bool,
    /// Keys that took effect at once.
    pub at_once: Vec<String>,
    /// Keys that take effect when a node is restarted.
    pub at_restart: Vec<String>,
}
