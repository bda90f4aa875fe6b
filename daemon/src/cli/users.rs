//! What can be asked of the users of the pair.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::{AskNode, Making};
use crate::users::Role;

/// The roles, each with what it means.
pub(super) fn roles() -> impl TypedValueParser<Value = Role> {
    let values = Role::ALL.map(|role| {
        PossibleValue::new(role.name()).help(match role {
            Role::Metrics => "Read metrics, and nothing else",
            Role::Viewer => "Look at everything",
            Role::Operator => "Start, stop, swap",
            Role::Administrator => "Everything, settings and users among it",
        })
    });
    PossibleValuesParser::new(values).try_map(|name| {
        let named = Role::ALL.into_iter().find(|role| role.name() == name);
        named.ok_or("there is no such role")
    })
}

/// `duolog users`.
#[derive(Args, Debug)]
pub(crate) struct Users {
    /// What to do.
    #[command(subcommand)]
    pub verb: UsersVerb,
}

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UsersVerb {
    /// List them with their roles. With --config the node need not run.
    List(ListUsers),
    /// Add one, on both nodes. The password is typed, or read from a file.
    Add(AddUser),
    /// Set a new password.
    Password(NewPassword),
    /// Give another role.
    Role(NewRole),
    /// Let one in again who was disabled.
    Enable(NamedUser),
    /// Let one in by nothing until he is enabled; whoever is logged in as him is out at once. His role,
    /// password and certificates stay.
    Disable(NamedUser),
    /// Remove one; whoever is logged in as him is out at once, and his certificates count no more.
    Remove(NamedUser),
}

/// `duolog users list`.
#[derive(Args, Debug)]
pub(crate) struct ListUsers {
    /// As JSON, one line each.
    #[arg(long)]
    pub json: bool,
    /// Which node.
    #[command(flatten)]
    pub node: AskNode,
}

/// `duolog users add`.
#[derive(Args, Debug)]
pub(crate) struct AddUser {
    /// What the user is called: letters, digits, "-", "_", "." and "@".
    pub name: String,
    /// What the user may do.
    #[arg(long, value_parser = roles())]
    pub role: Role,
    /// Where the password stands; - for standard input [default: it is typed].
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<PathBuf>,
    /// None: the user comes with a certificate (duolog certs user).
    #[arg(long, conflicts_with = "password_file")]
    pub no_password: bool,
    /// How.
    #[command(flatten)]
    pub making: Making,
}

/// `duolog users password`.
#[derive(Args, Debug)]
pub(crate) struct NewPassword {
    /// Whose.
    pub name: String,
    /// Where it stands; - for standard input [default: it is typed].
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<PathBuf>,
    /// How.
    #[command(flatten)]
    pub making: Making,
}

/// `duolog users role`.
#[derive(Args, Debug)]
pub(crate) struct NewRole {
    /// Whose.
    pub name: String,
    /// Which.
    #[arg(value_parser = roles())]
    pub role: Role,
    /// How.
    #[command(flatten)]
    pub making: Making,
}

/// `duolog users remove`, `enable` and `disable`.
#[derive(Args, Debug)]
pub(crate) struct NamedUser {
    /// Who.
    pub name: String,
    /// How.
    #[command(flatten)]
    pub making: Making,
}
