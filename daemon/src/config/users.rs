//! `[[user]]` and `[[revoked]]`: who may use the console and read metrics, and which certificates
//! of theirs count no more. Passwords stand here as hashes alone.

use super::reader::{Faults, Section};
use super::values::{choice, required};
use crate::users::{Role, fit_name, is_hash};

/// Most users of a pair.
const USERS_MAX: usize = 64;

/// Somebody who may use the console.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// What people and certificates call him.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// The hash of his password; nothing: he comes with a certificate.
    pub password: Option<String>,
}

/// Shows no hash.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, role, password } = self;
        let password = password.is_some();
        f.debug_struct("User")
            .field("name", name)
            .field("role", role)
            .field("password", &password)
            .finish()
    }
}

/// A certificate that counts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// Its serial number: hex digits in pairs, with colons between.
    pub serial: String,
    /// Whose it was.
    pub name: String,
}

/// Everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct People {
    /// Who may use the console.
    pub users: Vec<User>,
    /// Certificates that count no more.
    pub revoked: Vec<Revoked>,
}

impl People {
    /// The user of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Whether a certificate with that serial number counts no more.
    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.iter().any(|revoked| revoked.serial.eq_ignore_ascii_case(serial))
    }
}

/// Everybody; nothing after a fault.
pub(super) fn read_people(faults: &mut Faults, root: &mut Section<'_>) -> Option<People> {
    let users = read_users(faults, root);
    let revoked = read_revoked(faults, root);
    Some(People { users: users?, revoked: revoked? })
}

fn read_users(faults: &mut Faults, root: &mut Section<'_>) -> Option<Vec<User>> {
    let mut whole = true;
    let mut read: Vec<User> = Vec::new();
    for mut section in root.sections(faults, "user") {
        let line = section.line();
        let right = "write what he is called, such as \"anna\"";
        let name = required(faults, &mut section, "name", right).and_then(|found| {
            found.read(faults, |name| {
                fit_name(&name).map_err(|error| (error.to_string(), "choose another".into()))?;
                if read.iter().any(|other| other.name.eq_ignore_ascii_case(&name)) {
                    let wrong = format!("the user \"{name}\" is there twice");
                    return Err((wrong, "leave one of them out".into()));
                }
                Ok(name)
            })
        });
        let right = "write \"viewer\", \"operator\", \"administrator\" or \"metrics\"";
        let role = required(faults, &mut section, "role", right)
            .and_then(|found| choice(faults, found, &Role::ALL.map(|role| (role.name(), role))));
        let password = match section.string(faults, "password") {
            None => (!section.was_there("password")).then_some(None),
            Some(found) => found
                .read(faults, |hash| {
                    if is_hash(&hash) {
                        return Ok(Some(hash));
                    }
                    // What stands there may be the password itself.
                    let wrong = "is no hash of a password as Duolog makes it";
                    let right = "leave it out here, and set it with duolog users password NAME";
                    Err((wrong.into(), right.into()))
                })
                .map(|found| found.value),
        };
        section.finish(faults);
        if read.len() == USERS_MAX {
            let wrong = format!("there are more than {USERS_MAX} users");
            faults.add(line, "user", wrong, "leave some out: people can share a role, not a name");
            return None;
        }
        match (name, role, password) {
            (Some(name), Some(role), Some(password)) => {
                read.push(User { name: name.value, role, password });
            }
            _ => whole = false,
        }
    }
    whole.then_some(read)
}

fn read_revoked(faults: &mut Faults, root: &mut Section<'_>) -> Option<Vec<Revoked>> {
    let mut whole = true;
    let mut read = Vec::new();
    for mut section in root.sections(faults, "revoked") {
        let right =
            "write the serial number, as openssl x509 -serial or duolog certs user shows it";
        let serial = required(faults, &mut section, "serial", right).and_then(|found| {
            found.read(faults, |text| {
                crate::users::serial(&text)
                    .ok_or_else(|| (format!("\"{text}\" is no serial number"), right.to_owned()))
            })
        });
        let name = match section.string(faults, "name") {
            None => (!section.was_there("name")).then(String::new),
            Some(found) => Some(found.value),
        };
        section.finish(faults);
        match (serial, name) {
            (Some(serial), Some(name)) => read.push(Revoked { serial: serial.value, name }),
            _ => whole = false,
        }
    }
    whole.then_some(read)
}
