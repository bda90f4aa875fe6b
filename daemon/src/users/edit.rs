//! Users in the text of the document: everything else in it stays as people wrote it. Whether the
//! result can be used is asked afterwards.

use duolog_transport::Fingerprint;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::Role;

/// What stands in place of a hash for those who are not to see it.
const SET: &str = "[set]";

/// Why a user cannot be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// The text is no TOML.
    #[error("the settings are no TOML: {0}; mend them with duolog config edit")]
    NotToml(String),
    /// Somebody has that name.
    #[error(
        "there is a user called {0} already; change him with duolog users password or duolog users \
         role, or choose another name"
    )]
    There(String),
    /// Nobody has that name.
    #[error("there is no user called {name}; {known}")]
    Nobody {
        /// What was asked for.
        name: String,
        /// Which there are.
        known: String,
    },
}

fn read(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error| EditError::NotToml(format!("{error}").trim().to_owned()))
}

fn tables<'d>(
    document: &'d mut DocumentMut,
    name: &str,
) -> Result<&'d mut ArrayOfTables, EditError> {
    let item = document.entry(name).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let wrong = || EditError::NotToml(format!("{name} is not written as [[{name}]] tables"));
    item.as_array_of_tables_mut().ok_or_else(wrong)
}

fn called(table: &Table) -> &str {
    table.get("name").and_then(Item::as_str).unwrap_or_default()
}

/// With one user more.
///
/// # Errors
/// [`EditError`].
pub(crate) fn add(
    text: &str,
    name: &str,
    role: Role,
    hash: Option<&str>,
) -> Result<String, EditError> {
    let mut document = read(text)?;
    let users = tables(&mut document, "user")?;
    if users.iter().any(|user| called(user).eq_ignore_ascii_case(name)) {
        return Err(EditError::There(name.to_owned()));
    }
    let mut user = Table::new();
    user.insert("name", value(name));
    user.insert("role", value(role.name()));
    if let Some(hash) = hash {
        user.insert("password", value(hash));
    }
    users.push(user);
    Ok(document.to_string())
}

/// With one key of a user changed.
///
/// # Errors
/// [`EditError`].
pub(crate) fn set(text: &str, name: &str, key: &str, to: &str) -> Result<String, EditError> {
    let mut document = read(text)?;
    let users = tables(&mut document, "user")?;
    let known = known(users);
    let user = users.iter_mut().find(|user| called(user) == name);
    let user = user.ok_or_else(|| EditError::Nobody { name: name.to_owned(), known })?;
    match user.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            // What stands beside it stays.
            let decor = old.decor().clone();
            *old = to.into();
            *old.decor_mut() = decor;
        }
        None => drop(user.insert(key, value(to))),
    }
    Ok(document.to_string())
}

/// With a user who counts, or who is let in by nothing.
///
/// # Errors
/// [`EditError`].
pub(crate) fn enable(text: &str, name: &str, on: bool) -> Result<String, EditError> {
    let mut document = read(text)?;
    let users = tables(&mut document, "user")?;
    let known = known(users);
    let user = users.iter_mut().find(|user| called(user) == name);
    let user = user.ok_or_else(|| EditError::Nobody { name: name.to_owned(), known })?;
    // Nodes of earlier builds do not know the key: it is there only where it says something.
    if on {
        user.remove("disabled");
    } else {
        user.insert("disabled", value(true));
    }
    Ok(document.to_string())
}

/// Without that user.
///
/// # Errors
/// [`EditError`].
pub(crate) fn remove(text: &str, name: &str) -> Result<String, EditError> {
    let mut document = read(text)?;
    let users = tables(&mut document, "user")?;
    let known = known(users);
    let Some(at) = users.iter().position(|user| called(user) == name) else {
        return Err(EditError::Nobody { name: name.to_owned(), known });
    };
    let made: Vec<String> = users
        .get(at)
        .and_then(|user| user.get("certificates")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(|serial| serial.as_str().map(str::to_owned))
        .collect();
    users.remove(at);
    // Whoever gets the name next does not come with them.
    let text = document.to_string();
    made.iter().try_fold(text, |text, serial| revoke(&text, serial, name))
}

/// With a certificate written down as one of that user's.
///
/// # Errors
/// [`EditError`].
pub(crate) fn made(text: &str, name: &str, serial: &str) -> Result<String, EditError> {
    let mut document = read(text)?;
    let users = tables(&mut document, "user")?;
    let known = known(users);
    let user = users.iter_mut().find(|user| called(user) == name);
    let user = user.ok_or_else(|| EditError::Nobody { name: name.to_owned(), known })?;
    let list = user.entry("certificates").or_insert(value(Array::new()));
    let wrong = || EditError::NotToml(format!("certificates of {name} is no list"));
    list.as_array_mut().ok_or_else(wrong)?.push(serial);
    Ok(document.to_string())
}

/// With the keys `pins` as those of that node, and `revoked` among those that count no more.
///
/// # Errors
/// [`EditError::NotToml`].
pub(crate) fn pin(
    text: &str,
    node: u8,
    pins: &[Fingerprint],
    revoked: &[Fingerprint],
) -> Result<String, EditError> {
    let mut document = read(text)?;
    let there = tables(&mut document, "pin")?;
    let of_node = |table: &Table| table.get("node").and_then(Item::as_integer) == Some(node.into());
    there.retain(|table| !of_node(table));
    for pin in pins {
        let mut table = Table::new();
        table.insert("node", value(i64::from(node)));
        table.insert("key", value(pin.to_string()));
        there.push(table);
    }
    let there = tables(&mut document, "revoked")?;
    for key in revoked.iter().map(ToString::to_string) {
        if there.iter().all(|table| table.get("key").and_then(Item::as_str) != Some(&*key)) {
            let mut table = Table::new();
            table.insert("key", value(key));
            there.push(table);
        }
    }
    Ok(document.to_string())
}

/// With one revoked certificate more.
///
/// # Errors
/// [`EditError::NotToml`].
pub(crate) fn revoke(text: &str, serial: &str, name: &str) -> Result<String, EditError> {
    let mut document = read(text)?;
    let revoked = tables(&mut document, "revoked")?;
    if revoked.iter().any(|table| table.get("serial").and_then(Item::as_str) == Some(serial)) {
        return Ok(document.to_string());
    }
    let mut table = Table::new();
    table.insert("serial", value(serial));
    if !name.is_empty() {
        table.insert("name", value(name));
    }
    revoked.push(table);
    Ok(document.to_string())
}

fn known(users: &ArrayOfTables) -> String {
    let names: Vec<_> = users.iter().map(called).collect();
    match names.as_slice() {
        [] => "there is none; add one with duolog users add".to_owned(),
        names => format!("known are {}", names.join(", ")),
    }
}

/// The text with a word in place of each hash, for who is not to see them.
pub(crate) fn without_hashes(text: &str) -> String {
    let Ok(mut document) = read(text) else {
        // Nothing that could not be read is kept; if it is, nothing of it is shown.
        return String::new();
    };
    if let Some(users) = document.get_mut("user").and_then(Item::as_array_of_tables_mut) {
        for user in users.iter_mut() {
            if let Some(hash) = user.get_mut("password").and_then(Item::as_value_mut) {
                let decor = hash.decor().clone();
                *hash = SET.into();
                *hash.decor_mut() = decor;
            }
        }
    }
    if let Some(users) = document.get_mut("user").and_then(Item::as_array_mut) {
        for user in users.iter_mut().filter_map(toml_edit::Value::as_inline_table_mut) {
            if let Some(hash) = user.get_mut("password") {
                *hash = SET.into();
            }
        }
    }
    document.to_string()
}

/// With the hashes of `base` where [`without_hashes`] took them out, by the users' names. What is no
/// TOML stays as it is: it is refused for that.
pub(crate) fn with_hashes(text: &str, base: &str) -> String {
    let (Ok(mut document), Ok(base)) = (text.parse::<DocumentMut>(), base.parse::<DocumentMut>())
    else {
        return text.to_owned();
    };
    let known = base.get("user").and_then(Item::as_array_of_tables);
    let hash_of = |name: &str| {
        let user = known?.iter().find(|user| called(user) == name)?;
        user.get("password")?.as_str()
    };
    let users = document.get_mut("user").and_then(Item::as_array_of_tables_mut);
    for user in users.into_iter().flat_map(ArrayOfTables::iter_mut) {
        let hash = hash_of(called(user)).map(str::to_owned);
        if let (Some(given), Some(hash)) =
            (user.get_mut("password").and_then(Item::as_value_mut), hash)
            && given.as_str() == Some(SET)
        {
            let decor = given.decor().clone();
            *given = hash.into();
            *given.decor_mut() = decor;
        }
    }
    document.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# ours\n[pair]\nauto_rejoin = true # yes\n";

    #[test]
    fn users_come_and_go_and_the_rest_stays() {
        let one = add(TEXT, "anna", Role::Operator, Some("$h")).unwrap();
        assert!(one.starts_with(TEXT), "{one}");
        let two = add(&one, "ben", Role::Metrics, None).unwrap();
        assert_eq!(add(&two, "ANNA", Role::Viewer, None), Err(EditError::There("ANNA".into())));
        let changed = set(&two, "ben", "role", "viewer").unwrap();
        assert_eq!(changed, two.replace("\"metrics\"", "\"viewer\""));
        assert!(set(&two, "ben", "password", "$i").unwrap().ends_with("password = \"$i\"\n"));
        let nobody = set(&two, "carl", "role", "viewer").unwrap_err().to_string();
        assert_eq!(nobody, "there is no user called carl; known are anna, ben");
        assert_eq!(remove(&remove(&two, "ben").unwrap(), "anna").unwrap(), TEXT);
    }

    #[test]
    fn whoever_is_disabled_says_so_and_is_as_before_once_enabled() {
        let one = add(TEXT, "anna", Role::Operator, Some("$h")).unwrap();
        let off = enable(&one, "anna", false).unwrap();
        assert_eq!(off, one.clone() + "disabled = true\n");
        assert_eq!(enable(&off, "anna", true).unwrap(), one);
        assert!(matches!(enable(&one, "ben", false), Err(EditError::Nobody { .. })));
    }

    #[test]
    fn hashes_that_were_not_shown_come_back_and_new_ones_count() {
        let base = add(TEXT, "anna", Role::Operator, Some("$argon2id$x")).unwrap();
        let base = add(&base, "ben", Role::Viewer, Some("$argon2id$y")).unwrap();
        let shown = without_hashes(&base);
        assert!(!shown.contains("argon2id"));
        assert_eq!(with_hashes(&shown, &base), base);
        // Another one that was written by hand stays, and nobody gets somebody else's.
        let other = shown.replacen("[set]", "$argon2id$z", 1).replace("\"ben\"", "\"eve\"");
        let whole = with_hashes(&other, &base);
        assert!(whole.contains("$argon2id$z") && whole.contains("[set]"), "{whole}");
        assert!(!whole.contains("$argon2id$y"), "{whole}");
        assert_eq!(with_hashes("no toml", &base), "no toml");
    }

    #[test]
    fn hashes_are_not_shown_however_they_are_written() {
        let one = add(TEXT, "anna", Role::Operator, Some("$argon2id$x")).unwrap();
        let shown = without_hashes(&one);
        assert_eq!(shown, one.replace("$argon2id$x", "[set]"));
        let inline = "user = [{ name = \"a\", password = \"$argon2id$x\" }]\n";
        assert_eq!(without_hashes(inline), inline.replace("$argon2id$x", "[set]"));
    }
}
