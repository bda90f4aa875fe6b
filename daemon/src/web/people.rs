//! Users and settings of the pair, as administrators change them in the console: by the same way as
//! `duolog users` and `duolog config edit`, versioned and on both nodes.
//!
//! What is asked is a change of the document. This node looks at its own settings whether the user may,
//! writes the command into its log with the user's name, and offers the new version to the other node,
//! which keeps it only where it was made from the version that it has itself: so both say the same of
//! who may.

use duolog_console::Asker;
use duolog_console::api::problem::{Problem, Why};
use duolog_console::api::users::{
    NewUser, SettingsBase, SettingsChanged, SettingsChecked, SettingsDraft, SettingsFault,
    UserChange, UserEdit, UserEntry,
};

use super::backend::Here;
use crate::actions::Refusal;
use crate::config::{Shared, User};
use crate::document::{Author, ChangeError, Changed, Changes, Document, Name};
use crate::logs::By;
use crate::users::{self, EditError, Role};

fn refused(error: impl std::fmt::Display) -> Problem {
    Problem::new(Why::Refused, error.to_string())
}

fn of_change(error: &ChangeError) -> Problem {
    let why = match error {
        ChangeError::Faulty(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            let text =
                format!("nothing was changed, the settings have faults: {}", faults.join(" | "));
            return Problem::new(Why::BadRequest, text);
        }
        ChangeError::TooLong { .. } => Why::BadRequest,
        ChangeError::Unreachable { .. } => Why::Unreachable,
        ChangeError::Disk(_) => Why::Unavailable,
        _ => Why::Refused,
    };
    Problem::new(why, error.to_string())
}

fn of_edit(error: &EditError) -> Problem {
    let why = if let EditError::Nobody { .. } = error { Why::NotFound } else { Why::Refused };
    Problem::new(why, error.to_string())
}

fn unfit(error: impl std::fmt::Display) -> Problem {
    Problem::new(Why::BadRequest, error.to_string())
}

/// A new text of the document. Hashing takes some tens of milliseconds.
fn edited(text: &str, edit: &UserEdit) -> Result<String, Problem> {
    let text = match edit {
        UserEdit::Add(NewUser { name, role, password }) => {
            let hash = password.as_deref().map(|given| users::hash(name, given));
            let hash = hash.transpose().map_err(unfit)?;
            users::add(text, name, *role, hash.as_deref())
        }
        UserEdit::Change { name, change } => match change {
            UserChange::Role(role) => users::set(text, name, "role", role.name()),
            UserChange::Password(given) => {
                let hash = users::hash(name, given).map_err(unfit)?;
                users::set(text, name, "password", &hash)
            }
            UserChange::Enabled(on) => users::enable(text, name, *on),
        },
        UserEdit::Remove { name } => users::remove(text, name),
    };
    text.map_err(|error| of_edit(&error))
}

fn whom(edit: &UserEdit) -> &str {
    match edit {
        UserEdit::Add(NewUser { name, .. })
        | UserEdit::Change { name, .. }
        | UserEdit::Remove { name } => name,
    }
}

/// The command as the log of commands has it: that of the command line, without passwords.
fn words(edit: &UserEdit) -> (&'static str, Vec<String>) {
    match edit {
        UserEdit::Add(NewUser { name, role, .. }) => {
            ("users add", vec![name.clone(), format!("--role={}", role.name())])
        }
        UserEdit::Change { name, change } => match change {
            UserChange::Role(role) => ("users role", vec![name.clone(), role.name().into()]),
            UserChange::Password(_) => ("users password", vec![name.clone()]),
            UserChange::Enabled(true) => ("users enable", vec![name.clone()]),
            UserChange::Enabled(false) => ("users disable", vec![name.clone()]),
        },
        UserEdit::Remove { name } => ("users remove", vec![name.clone()]),
    }
}

/// Nobody shuts everybody out by a click; `duolog users`, as root, still can.
fn keeps_an_administrator(text: &str) -> Result<(), Problem> {
    let people = Shared::people(text).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Problem::new(Why::BadRequest, faults.join(" | "))
    })?;
    // Nobody gets in without a password or a certificate, whatever the role.
    let shows = |user: &User| {
        let valid = |serial: &String| !people.is_revoked(serial);
        user.password.is_some() || user.certificates.iter().any(valid)
    };
    let counts = |user: &User| user.role == Role::Administrator && !user.disabled && shows(user);
    if people.users.iter().any(counts) {
        return Ok(());
    }
    Err(refused(
        "no administrator would be left who could log in and change this back; give another one a password \
         first, or use duolog users on the computer itself",
    ))
}

fn name(SettingsBase { version, node, hash }: &SettingsBase) -> Name {
    let hash = hash.get(..16).unwrap_or(hash).to_owned();
    Name { version: *version, node: *node, hash }
}

impl Here {
    /// The version that counts.
    fn document(&self) -> Result<Option<Document>, Problem> {
        let documents = self.own.member.documents();
        if documents.in_file() {
            return Err(of_change(&ChangeError::InFile));
        }
        Ok(documents.history().pop())
    }

    /// Has an administrator change the document from `base`, and writes down what came of it.
    fn change(
        &self,
        asker: &Asker,
        (command, arguments): (&str, &[String]),
        here: bool,
        with: impl FnOnce() -> Result<(Option<Name>, String), Problem>,
    ) -> Result<SettingsChanged, Problem> {
        let by = By::console(&asker.name, asker.from);
        let running = self.own.logs.action(by, command, arguments, None);
        let change = || {
            let least = Role::Administrator;
            if self.users.role_of(&asker.name).is_none_or(|role| role < least) {
                let why = Refusal::Role { needs: least.name().into() };
                let text = format!("node{} refuses: {why}", self.own.node());
                return Err(Problem::new(Why::Forbidden, text));
            }
            let (base, text) = with()?;
            keeps_an_administrator(&text)?;
            let documents = self.own.member.documents();
            let author = Author { who: asker.name.clone(), console: true };
            let changed = documents.change(base.as_ref(), text, author, here);
            changed.map_err(|error| of_change(&error))
        };
        let came = change();
        running.end(&match &came {
            Ok(changed) => format!("done: {}", changed.stamp.title()),
            Err(problem) => problem.text.clone(),
        });
        let Changed { stamp, both, changes: Changes { at_once, at_restart } } = came?;
        Ok(SettingsChanged { stamp, both, at_once, at_restart })
    }

    /// See [`duolog_console::Backend::users`].
    pub(super) fn told_users(&self) -> Vec<UserEntry> {
        self.own.member.documents().people().users.iter().map(users::told).collect()
    }

    /// See [`duolog_console::Backend::edit_users`].
    pub(super) fn carry_out(
        &self,
        asker: &Asker,
        edit: &UserEdit,
        here: bool,
    ) -> Result<SettingsChanged, Problem> {
        // What is nobody's name is not written down: it may be as long as a request.
        users::fit_name(whom(edit)).map_err(unfit)?;
        let (command, mut arguments) = words(edit);
        arguments.extend(here.then(|| "--here".into()));
        self.change(asker, (command, &arguments), here, || {
            let base = self.document()?;
            let text = base.as_ref().map_or("", |document| &document.text);
            let text = edited(text, edit)?;
            Ok((base.map(|document| document.name()), text))
        })
    }

    /// The text that a draft stands for: hashes that were not shown are those that there are.
    fn whole(&self, draft: &SettingsDraft) -> Result<String, Problem> {
        let base = self.document()?;
        let known = base.as_ref().map_or("", |document| &document.text);
        Ok(users::with_hashes(&draft.text, known))
    }

    /// See [`duolog_console::Backend::check_settings`].
    pub(super) fn checked(&self, draft: &SettingsDraft) -> Result<SettingsChecked, Problem> {
        let text = self.whole(draft)?;
        let documents = self.own.member.documents();
        match documents.a_console_may(&text).and_then(|()| documents.would_change(&text)) {
            Ok(Changes { at_once, at_restart }) => {
                Ok(SettingsChecked { faults: Vec::new(), at_once, at_restart })
            }
            Err(ChangeError::Faulty(faults)) => {
                let told = |fault: &crate::config::Fault| SettingsFault {
                    line: fault.line as u64,
                    text: fault.to_string(),
                };
                let faults = faults.iter().map(told).collect();
                Ok(SettingsChecked { faults, ..SettingsChecked::default() })
            }
            Err(error) => Err(of_change(&error)),
        }
    }

    /// See [`duolog_console::Backend::change_settings`].
    pub(super) fn changed(
        &self,
        asker: &Asker,
        draft: &SettingsDraft,
    ) -> Result<SettingsChanged, Problem> {
        let arguments: Vec<String> = draft.here.then(|| "--here".into()).into_iter().collect();
        self.change(asker, ("config edit", &arguments), draft.here, || {
            Ok((draft.base.as_ref().map(name), self.whole(draft)?))
        })
    }
}
