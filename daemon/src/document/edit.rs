//! One key of a document changed, everything else left as it was written, comments too. Knows
//! nothing of what the keys mean: whether the result can be used is asked afterwards.

use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

/// Why a key cannot be set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// The text is no TOML.
    #[error("the settings are no TOML: {0}; mend them with duolog config edit")]
    NotToml(String),
    /// The key is none.
    #[error(
        "{key:?} is no key; write it as table.key, such as pair.peer_lost_ms, or \
         service.NAME.restarts for one of several tables"
    )]
    NotAKey {
        /// What was given.
        key: String,
    },
    /// One of several tables is meant, and it is not there.
    #[error("there is no {table} called {name:?}; {known}")]
    NoSuchTable {
        /// The table.
        table: String,
        /// Its name or address.
        name: String,
        /// Which there are.
        known: String,
    },
}

/// Sets `key` of the text to `value`: TOML, or a text without its quotes. `unset`: takes it out.
///
/// # Errors
/// [`EditError`].
pub(crate) fn set(text: &str, key: &str, value: Option<&str>) -> Result<String, EditError> {
    let mut document: DocumentMut =
        text.parse().map_err(|error| EditError::NotToml(format!("{error}").trim().to_owned()))?;
    let not_a_key = || EditError::NotAKey { key: key.to_owned() };
    let (table, rest) = key.split_once('.').ok_or_else(not_a_key)?;
    let (within, last): (&mut dyn TableLike, &str) = match table {
        "pair" => {
            let item = document.entry(table).or_insert(Item::Table(Table::new()));
            (item.as_table_like_mut().ok_or_else(not_a_key)?, rest)
        }
        "service" | "virtual_ip" | "user" => {
            let (name, last) = rest.rsplit_once('.').ok_or_else(not_a_key)?;
            (one_of(&mut document, table, name)?, last)
        }
        _ => return Err(not_a_key()),
    };
    if last.is_empty() || last.contains('.') {
        return Err(not_a_key());
    }
    match value {
        None => drop(within.remove(last)),
        Some(value) => put(within, last, value),
    }
    Ok(document.to_string())
}

/// The table whose `name` or `address` is meant.
fn one_of<'d>(
    document: &'d mut DocumentMut,
    table: &str,
    name: &str,
) -> Result<&'d mut dyn TableLike, EditError> {
    let by = if table == "virtual_ip" { "address" } else { "name" };
    let called = |found: &Table| {
        let named = found.get(by).or_else(|| found.get("preset"));
        named.and_then(Item::as_str).unwrap_or_default().to_owned()
    };
    let tables = document.get_mut(table).and_then(Item::as_array_of_tables_mut);
    let known: Vec<String> = tables.iter().flat_map(|all| all.iter().map(called)).collect();
    let tables = tables.map(|all| all.iter_mut()).into_iter().flatten();
    for (found, called) in tables.zip(&known) {
        // An address is meant with its prefix or without.
        let bare = called.split('/').next();
        if called == name || (by == "address" && bare == Some(name)) {
            return Ok(found);
        }
    }
    let known = match known.as_slice() {
        [] => "there is none; add one with duolog config edit".to_owned(),
        known => format!("known are {}", known.join(", ")),
    };
    Err(EditError::NoSuchTable { table: table.to_owned(), name: name.to_owned(), known })
}

/// In place, so that comments before and behind the value stay.
fn put(table: &mut dyn TableLike, key: &str, value: &str) {
    // What is no TOML is a text whose quotes the shell took.
    let mut value: Value = value.parse().unwrap_or_else(|_| Value::from(value));
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}
