//! `[[user]]`, `[[pin]]` and `[[revoked]]`: who may use the console and read metrics, which keys
//! the nodes have taken since they were set up, and which certificates and keys count no more.
//! Passwords stand here as hashes alone.

use duolog_transport::Fingerprint;

use super::reader::{Faults, Found, Section};
use super::values::{choice, number, required, switch};
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
    /// Serial numbers of the certificates that were made for him.
    pub certificates: Vec<String>,
    /// He is let in by nothing until that is taken back.
    pub disabled: bool,
}

/// Shows no hash.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, role, password, certificates, disabled } = self;
        let password = password.is_some();
        f.debug_struct("User")
            .field("name", name)
            .field("role", role)
            .field("password", &password)
            .field("certificates", certificates)
            .field("disabled", disabled)
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
    /// Keys of nodes, by the node's number, which count as what its peer was configured with does.
    pub pins: Vec<(u8, Fingerprint)>,
    /// Keys or certificates of nodes that count no more, whoever pinned them.
    pub revoked_keys: Vec<Fingerprint>,
}

impl People {
    /// The user of that name who counts: nobody finds those who are disabled.
    pub(crate) fn find(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name && !user.disabled)
    }

    /// The user of that name, enabled or not.
    pub(crate) fn named(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Whether a certificate with that serial number counts no more.
    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.iter().any(|revoked| revoked.serial.eq_ignore_ascii_case(serial))
    }

    /// Whether nothing that a node could show counts any more: neither what its peer was `configured`
    /// with nor a key that was pinned since.
    pub(crate) fn is_revoked_node(&self, node: u8, configured: Fingerprint) -> bool {
        let pinned = self.pins.iter().filter(|(of, _)| *of == node).map(|(_, key)| key);
        std::iter::once(&configured).chain(pinned).all(|key| self.revoked_keys.contains(key))
    }
}

/// Everybody; nothing after a fault.
pub(super) fn read_people(faults: &mut Faults, root: &mut Section<'_>) -> Option<People> {
    let users = read_users(faults, root);
    let pins = read_pins(faults, root);
    let revoked = read_revoked(faults, root);
    let ((revoked, revoked_keys), pins) = (revoked?, pins?);
    Some(People { users: users?, revoked, pins, revoked_keys })
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
        let mut certificates = Vec::new();
        for found in section.strings(faults, "certificates").unwrap_or_default() {
            match found.read(faults, |text| read_serial(&text)) {
                Some(found) => certificates.push(found.value),
                None => whole = false,
            }
        }
        let disabled = switch(faults, &mut section, "disabled", false);
        section.finish(faults);
        if read.len() == USERS_MAX {
            let wrong = format!("there are more than {USERS_MAX} users");
            faults.add(line, "user", wrong, "leave some out: people can share a role, not a name");
            return None;
        }
        match (name, role, password, disabled) {
            (Some(name), Some(role), Some(password), Some(disabled)) => {
                read.push(User { name: name.value, role, password, certificates, disabled });
            }
            _ => whole = false,
        }
    }
    whole.then_some(read)
}

const SERIAL: &str =
    "write the serial number, as duolog certs user or openssl x509 -serial shows it";

fn read_serial(text: &str) -> Result<String, (String, String)> {
    crate::users::serial(text)
        .ok_or_else(|| (format!("\"{text}\" is no serial number"), SERIAL.into()))
}

fn read_key(faults: &mut Faults, found: Found<String>) -> Option<Fingerprint> {
    let read = found.read(faults, |text| {
        let right = "copy the whole fingerprint, as duolog certs show prints it";
        text.parse().map_err(|_| (format!("\"{text}\" is no fingerprint"), right.to_owned()))
    });
    read.map(|found| found.value)
}

fn read_pins(faults: &mut Faults, root: &mut Section<'_>) -> Option<Vec<(u8, Fingerprint)>> {
    let mut whole = true;
    let mut read = Vec::new();
    for mut section in root.sections(faults, "pin") {
        if !section.has("node") {
            section.missing(faults, "node", "write the node's number, 1 or 2");
        }
        let node = number(faults, &mut section, "node", 0, 1..=2);
        let key = required(faults, &mut section, "key", "leave pins to duolog certs renew")
            .and_then(|found| read_key(faults, found));
        section.finish(faults);
        match (node, key) {
            (Some(node @ 1..=2), Some(key)) => read.push((if node == 1 { 1 } else { 2 }, key)),
            _ => whole = false,
        }
    }
    whole.then_some(read)
}

fn read_revoked(
    faults: &mut Faults,
    root: &mut Section<'_>,
) -> Option<(Vec<Revoked>, Vec<Fingerprint>)> {
    let mut whole = true;
    let (mut certificates, mut keys) = (Vec::new(), Vec::new());
    for mut section in root.sections(faults, "revoked") {
        if section.has("key") {
            match section.string(faults, "key").and_then(|found| read_key(faults, found)) {
                Some(key) => keys.push(key),
                None => whole = false,
            }
            section.finish(faults);
            continue;
        }
        let serial = required(faults, &mut section, "serial", SERIAL)
            .and_then(|found| found.read(faults, |text| read_serial(&text)));
        let name = match section.string(faults, "name") {
            None => (!section.was_there("name")).then(String::new),
            Some(found) => Some(found.value),
        };
        section.finish(faults);
        match (serial, name) {
            (Some(serial), Some(name)) => certificates.push(Revoked { serial: serial.value, name }),
            _ => whole = false,
        }
    }
    whole.then_some((certificates, keys))
}
