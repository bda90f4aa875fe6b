//! `duolog users`: lists and changes the users of the pair, in the document. A password never leaves
//! this process: what goes to the node is its hash.

use std::process::ExitCode;

use anyhow::bail;

use super::{Role, edit, fit_name, password, told, typed};
use crate::cli::{AskNode, Making, UsersVerb};
use crate::config::{People, Shared};
use crate::document;

/// Carries it out.
pub(crate) fn run(verb: &UsersVerb) -> anyhow::Result<ExitCode> {
    match verb {
        UsersVerb::List(options) => list(&options.node, options.json),
        UsersVerb::Add(options) => {
            let name = &options.name;
            fit_name(name)?;
            // Whether he is there is told before anything is typed.
            changed(&options.making, |text| edit::add(text, name, options.role, None))?;
            let hash = if options.no_password {
                None
            } else {
                let file = options.password_file.as_deref();
                let typed = typed::ask(&format!("Password of {name}"), file)?;
                Some(password::hash(name, &typed)?)
            };
            let words = ["users add", name, &format!("--role={}", options.role)];
            submit(&options.making, &words, |text| {
                edit::add(text, name, options.role, hash.as_deref())
            })
        }
        UsersVerb::Password(options) => {
            let name = &options.name;
            changed(&options.making, |text| edit::set(text, name, "password", ""))?;
            let file = options.password_file.as_deref();
            let typed = typed::ask(&format!("New password of {name}"), file)?;
            let hash = password::hash(name, &typed)?;
            submit(&options.making, &["users password", name], |text| {
                edit::set(text, name, "password", &hash)
            })
        }
        UsersVerb::Role(options) => {
            let words = ["users role", &options.name, options.role.name()];
            submit(&options.making, &words, |text| {
                edit::set(text, &options.name, "role", options.role.name())
            })
        }
        UsersVerb::Enable(options) => {
            submit(&options.making, &["users enable", &options.name], |text| {
                edit::enable(text, &options.name, true)
            })
        }
        UsersVerb::Disable(options) => {
            submit(&options.making, &["users disable", &options.name], |text| {
                edit::enable(text, &options.name, false)
            })
        }
        UsersVerb::Remove(options) => {
            submit(&options.making, &["users remove", &options.name], |text| {
                edit::remove(text, &options.name)
            })
        }
    }
}

/// Changes the text of the document as `change` says, on both nodes; `words` are for the record.
/// Returns the exit code.
pub(crate) fn submit(
    making: &Making,
    words: &[&str],
    change: impl Fn(&str) -> Result<String, edit::EditError>,
) -> anyhow::Result<ExitCode> {
    let words: Vec<String> = words.iter().copied().map(str::to_owned).collect();
    document::change(making, words, change)
}

/// What would come of a change, so that one that cannot be is told early.
fn changed(
    making: &Making,
    change: impl Fn(&str) -> Result<String, edit::EditError>,
) -> anyhow::Result<String> {
    let base = document::fetch(&making.node)?;
    Ok(change(base.as_ref().map_or("", |document| &document.text))?)
}

fn list(node: &AskNode, json: bool) -> anyhow::Result<ExitCode> {
    let document = document::fetch(node)?;
    let text = document.map_or_else(String::new, |document| document.text);
    let People { users, revoked, .. } = match Shared::people(&text) {
        Ok(people) => people,
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
            bail!("the settings have faults:{}", faults.concat());
        }
    };
    for user in &users {
        let told = told(user);
        if json {
            println!("{}", serde_json::to_string(&told)?);
        } else {
            let how = if told.password { "password" } else { "certificate only" };
            let off = if told.enabled { "" } else { ", disabled" };
            println!("{:<20} {:<14} {how}{off}", told.name, told.role.name());
        }
    }
    if json {
        return Ok(ExitCode::SUCCESS);
    }
    if users.is_empty() {
        eprintln!("there are no users: nobody can use the console; add one with duolog users add");
    } else if !users.iter().any(|user| user.role == Role::Administrator && !user.disabled) {
        eprintln!("none of them is an administrator: settings are changed with duolog alone");
    }
    for revoked in &revoked {
        println!("revoked              {} of {}", revoked.serial, revoked.name);
    }
    Ok(ExitCode::SUCCESS)
}
