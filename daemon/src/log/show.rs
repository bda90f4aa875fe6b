//! One record in words, for people and for scripts.

use std::fmt::Write;

use duolog_wal::{Attributes, FileTime, Operation, Record};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::place::{moment, moment_json};

/// A record as a line of text.
pub(super) fn line(record: &Record<'_>, data: bool) -> String {
    let (name, fields) = words(record, data);
    let mut text = format!("{}  {}  {name}", record.lsn, moment(record.end.time));
    for (key, value) in fields {
        let value = match value {
            Value::String(value) => value,
            value => value.to_string(),
        };
        write!(text, " {key}={value}").expect(IN_MEMORY);
    }
    text
}

/// A record as an object of JSON.
pub(super) fn object(record: &Record<'_>, data: bool) -> Value {
    let (name, fields) = words(record, data);
    let mut object = Map::new();
    object.insert("lsn".into(), json!(record.lsn.to_string()));
    object.insert("end".into(), json!(record.end.lsn.to_string()));
    object.insert("chain".into(), json!(record.end.chain.to_string()));
    object.insert("time".into(), json!(moment_json(record.end.time)));
    object.insert("view".into(), json!(record.view.0));
    object.insert("committed".into(), json!(record.committed.to_string()));
    object.insert("operation".into(), json!(name));
    object.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Value::Object(object)
}

/// Why writing to a string does not fail.
const IN_MEMORY: &str = "a string grows as needed";

type Fields = Vec<(&'static str, Value)>;

fn words(record: &Record<'_>, data: bool) -> (&'static str, Fields) {
    let operation = match Operation::decode(record) {
        Ok(operation) => operation,
        Err(error) => {
            let mut fields =
                vec![("kind", json!(record.kind)), ("error", json!(error.to_string()))];
            payload(&mut fields, "body", record.body, data);
            return ("unreadable", fields);
        }
    };
    let mut more: Fields = Vec::new();
    let (what, fields) = match operation {
        Operation::Mark { time } => ("mark", vec![("at", json!(moment(time)))]),
        Operation::View(view) => (
            "view",
            vec![
                ("num", json!(view.num.0)),
                ("primary", json!(view.primary.number())),
                ("pair", json!(view.pair)),
                ("origin", json!(view.origin.number())),
                ("forced", json!(view.forced)),
                ("witness", json!(format!("{:032x}", view.witness))),
            ],
        ),
        Operation::Verify { id, offset, len } => {
            ("verify", vec![("id", json!(id.0)), ("offset", json!(offset)), ("bytes", json!(len))])
        }
        Operation::Keep { pass, id, offset, len } => (
            "keep",
            vec![
                ("id", json!(id.0)),
                ("offset", json!(offset)),
                ("bytes", json!(len)),
                ("pass", json!(pass.to_string())),
            ],
        ),
        Operation::Mend { id, at, facts } => {
            payload(&mut more, "facts", facts, data);
            ("mend", vec![("id", json!(id.0)), ("as_at", json!(at.to_string()))])
        }
        Operation::Write { id, offset, data: bytes } => {
            payload(&mut more, "data", bytes, data);
            let len = json!(bytes.len());
            ("write", vec![("id", json!(id.0)), ("offset", json!(offset)), ("bytes", len)])
        }
        Operation::Patch { id, offset, pieces } => {
            let pieces: Vec<_> = pieces
                .iter()
                .map(|(at, bytes)| {
                    if data {
                        json!([at, bytes.len(), hex(bytes)])
                    } else {
                        json!([at, bytes.len()])
                    }
                })
                .collect();
            (
                "patch",
                vec![("id", json!(id.0)), ("offset", json!(offset)), ("pieces", json!(pieces))],
            )
        }
        Operation::Truncate { id, size } => {
            ("truncate", vec![("id", json!(id.0)), ("size", json!(size))])
        }
        Operation::Allocate { id, offset, len, mode } => (
            "allocate",
            vec![
                ("id", json!(id.0)),
                ("offset", json!(offset)),
                ("bytes", json!(len)),
                ("flags", json!(mode)),
            ],
        ),
        Operation::Create { parent, id, mode, uid, gid, device, name } => (
            "create",
            vec![
                ("id", json!(id.0)),
                ("parent", json!(parent.0)),
                ("name", text(name)),
                ("mode", octal(mode)),
                ("uid", json!(uid)),
                ("gid", json!(gid)),
                ("device", json!(device)),
            ],
        ),
        Operation::Symlink { parent, id, uid, gid, name, target } => (
            "symlink",
            vec![
                ("id", json!(id.0)),
                ("parent", json!(parent.0)),
                ("name", text(name)),
                ("target", text(target)),
                ("uid", json!(uid)),
                ("gid", json!(gid)),
            ],
        ),
        Operation::Link { id, parent, name } => {
            ("link", vec![("id", json!(id.0)), ("parent", json!(parent.0)), ("name", text(name))])
        }
        Operation::Rename { id, replaced, parent, new_parent, flags, name, new_name } => (
            "rename",
            vec![
                ("id", json!(id.0)),
                ("parent", json!(parent.0)),
                ("name", text(name)),
                ("new_parent", json!(new_parent.0)),
                ("new_name", text(new_name)),
                ("replaced", json!(replaced.map(|id| id.0))),
                ("flags", json!(flags)),
            ],
        ),
        Operation::Remove { parent, id, name } => {
            ("remove", vec![("id", json!(id.0)), ("parent", json!(parent.0)), ("name", text(name))])
        }
        Operation::Unnamed { parent, id, mode, uid, gid } => (
            "unnamed",
            vec![
                ("id", json!(id.0)),
                ("parent", json!(parent.0)),
                ("mode", octal(mode)),
                ("uid", json!(uid)),
                ("gid", json!(gid)),
            ],
        ),
        Operation::Drop { id } => ("drop", vec![("id", json!(id.0))]),
        Operation::SetAttributes { id, attributes } => {
            more = attribute_fields(attributes);
            ("attributes", vec![("id", json!(id.0))])
        }
        Operation::SetXattr { id, flags, name, value } => {
            payload(&mut more, "value", value, data);
            let len = json!(value.len());
            let flags = json!(flags);
            let id = json!(id.0);
            ("set_xattr", vec![("id", id), ("name", text(name)), ("flags", flags), ("bytes", len)])
        }
        Operation::RemoveXattr { id, name } => {
            ("remove_xattr", vec![("id", json!(id.0)), ("name", text(name))])
        }
    };
    (what, fields.into_iter().chain(more).collect())
}

fn attribute_fields(attributes: Attributes) -> Fields {
    let Attributes { mode, uid, gid, atime, mtime } = attributes;
    let fields = [
        ("mode", mode.map(octal)),
        ("uid", uid.map(|uid| json!(uid))),
        ("gid", gid.map(|gid| json!(gid))),
        ("atime", atime.map(file_time)),
        ("mtime", mtime.map(file_time)),
    ];
    fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn payload(fields: &mut Fields, key: &'static str, bytes: &[u8], data: bool) {
    if data {
        fields.push((key, json!(hex(bytes))));
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(out, "{byte:02x}").expect(IN_MEMORY);
    }
    out
}

fn octal(mode: u32) -> Value {
    json!(format!("{mode:o}"))
}

/// A name: a backslash is two, what is no UTF-8 and what would break a line is `\xNN`, as in the
/// manifest of a base copy.
fn text(name: &[u8]) -> Value {
    let mut out = String::new();
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                ' ' => out.push(' '),
                plain if plain.is_control() || plain.is_whitespace() => {
                    let mut bytes = [0; 4];
                    for byte in plain.encode_utf8(&mut bytes).bytes() {
                        write!(out, "\\x{byte:02x}").expect(IN_MEMORY);
                    }
                }
                plain => out.push(plain),
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect(IN_MEMORY);
        }
    }
    json!(out)
}

fn file_time(time: FileTime) -> Value {
    let nanos = i32::try_from(time.nanos).ok();
    let moment = nanos.and_then(|nanos| Timestamp::new(time.seconds, nanos).ok());
    match moment {
        Some(moment) => json!(moment.to_string()),
        None => json!(format!("@{}.{:09}", time.seconds, time.nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_a_line_and_nothing_of_it_is_lost() {
        assert_eq!(text(b"base/1/2"), json!("base/1/2"));
        assert_eq!(text("é\\\n\u{ff}".as_bytes()), json!("é\\\\\\x0aÿ"));
        assert_eq!(text(b"odd \xff"), json!("odd \\xff"));
    }

    #[test]
    fn the_time_of_a_file_is_shown_like_that_of_a_record() {
        let time = duolog_wal::Time(1_763_769_600_000_000_001);
        assert_eq!(file_time(FileTime::from(time)), json!(moment(time)));
        let before = FileTime { seconds: -1, nanos: 999_999_999 };
        assert_eq!(file_time(before), json!("1969-12-31T23:59:59.999999999Z"));
    }
}
