//! Who is let in: by password and by certificate, against a document that changes.

use std::net::{IpAddr, Ipv4Addr};

use super::attempts::WRONG_MAX;
use super::for_tests::{certificate, der, documents};
use super::*;
use crate::config::Shared;
use crate::document::Document;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Makes `text` the document.
fn set(documents: &Documents, text: &str) {
    let base = documents.history().last().map(Document::name);
    documents.change(base.as_ref(), text.into(), "root".to_owned().into(), false).unwrap();
}

fn with_anna(role: &str) -> String {
    let role = Role::ALL.into_iter().find(|it| it.name() == role).unwrap();
    let hash = hash("anna", "correct horse").unwrap();
    add("", "anna", role, Some(&hash)).unwrap()
}

#[test]
fn a_password_opens_and_who_was_removed_is_out_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let documents = documents(directory.path(), "");
    set(&documents, &with_anna("operator"));
    let users = Users::new(documents.clone());
    let runtime = runtime();
    let ask = |name, password| runtime.block_on(users.by_password(name, password, HERE));
    let who = ask("anna", "correct horse").unwrap();
    assert_eq!(who, Who { name: "anna".into(), role: Role::Operator, by: By::Password });
    assert_eq!(ask("anna", "correct horsf"), Err(Refused::Wrong));
    assert_eq!(ask("Anna", "correct horse"), Err(Refused::Wrong));
    assert_eq!(ask("nobody", "correct horse"), Err(Refused::Wrong));
    assert_eq!(users.role_of("anna"), Some(Role::Operator));
    let text = documents.history().last().unwrap().text.clone();
    set(&documents, &edit::set(&text, "anna", "role", "viewer").unwrap());
    assert_eq!(users.role_of("anna"), Some(Role::Viewer));
    set(&documents, &remove(&text, "anna").unwrap());
    assert_eq!(users.role_of("anna"), None);
    assert_eq!(ask("anna", "correct horse"), Err(Refused::Wrong));
}

#[test]
fn a_user_without_a_password_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let documents = documents(directory.path(), "");
    set(&documents, &add("", "ben", Role::Viewer, None).unwrap());
    let users = Users::new(documents);
    for password in ["", "nobody has it"] {
        let asked = users.by_password("ben", password, HERE);
        assert_eq!(runtime().block_on(asked), Err(Refused::Wrong));
    }
}

/// A name is guessed from many addresses, and an address guesses many names.
#[test]
fn guessing_ends_for_a_name_and_for_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let documents = documents(directory.path(), "");
    set(&documents, &with_anna("viewer"));
    let users = Users::new(documents.clone());
    let runtime = runtime();
    for number in 0..WRONG_MAX {
        let from = IpAddr::V4(Ipv4Addr::from_bits(0x0a01_0000 + number));
        let asked = users.by_password("anna", "wrong", from);
        assert_eq!(runtime.block_on(asked), Err(Refused::Wrong));
    }
    let asked = users.by_password("anna", "correct horse", HERE);
    assert_eq!(runtime.block_on(asked), Err(Refused::TooMany));

    let users = Users::new(documents);
    for number in 0..WRONG_MAX {
        let name = format!("user{number}");
        let asked = users.by_password(&name, "wrong", HERE);
        assert_eq!(runtime.block_on(asked), Err(Refused::Wrong));
    }
    let ask = |from| runtime.block_on(users.by_password("anna", "correct horse", from));
    assert_eq!(ask(HERE), Err(Refused::TooMany));
    assert_eq!(ask(THERE).unwrap().role, Role::Viewer);
}

#[test]
fn a_certificate_says_a_name_and_the_document_says_what_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let documents = documents(directory.path(), "");
    set(&documents, &with_anna("viewer"));
    let users = Users::new(documents.clone());
    let annas = certificate("anna");
    let who = users.by_certificate(&annas).unwrap();
    // The certificate says administrator.
    assert_eq!(who, Who { name: "anna".into(), role: Role::Viewer, by: By::Certificate });
    let removed = Err(Refused::Removed { name: "ben".into() });
    assert_eq!(users.by_certificate(&certificate("ben")), removed);

    let serial = certificate::of_user(&annas).unwrap().serial;
    let text = documents.history().last().unwrap().text.clone();
    set(&documents, &revoke(&text, &serial, "anna").unwrap());
    let revoked = Err(Refused::Revoked { name: "anna".into(), serial });
    assert_eq!(users.by_certificate(&annas), revoked);
    assert!(users.by_certificate(&certificate("anna")).is_ok(), "another one of hers");
}

/// A node's certificate is signed by the same authority.
#[test]
fn a_certificate_of_a_node_is_nobodys() {
    let directory = tempfile::tempdir().unwrap();
    let documents = documents(directory.path(), "");
    set(&documents, &add("", "node1", Role::Administrator, None).unwrap());
    let key = duolog_transport::new_key().unwrap();
    let authority = duolog_transport::Authority::new("shop", &key).unwrap();
    let node = authority.issue(&["node1".into()], &key).unwrap();
    let users = Users::new(documents);
    assert_eq!(users.by_certificate(&der(&node)), Err(Refused::NotAUser));
    assert_eq!(users.by_certificate(b"junk"), Err(Refused::NotAUser));
}

#[test]
fn faults_of_users_are_named_with_what_would_be_right() {
    let hash = hash("anna", "correct horse").unwrap();
    let faults = |text: &str| -> Vec<String> {
        let faults = Shared::people(text).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    };
    let user = |name: &str, more: &str| format!("[[user]]\nname = \"{name}\"\n{more}\n");
    assert_eq!(
        faults(&user("anna", &format!("role = \"viewer\"\npassword = \"{hash}\""))),
        [""; 0]
    );
    let twice = user("anna", "role = \"viewer\"") + &user("Anna", "role = \"viewer\"");
    for (text, said) in [
        (user("anna", "role = \"root\""), "user.role: \"root\" is not known; write \"viewer\""),
        (user("anna", ""), "user.role: is missing"),
        (user("../a", "role = \"viewer\""), "cannot name a user"),
        (twice, "the user \"Anna\" is there twice"),
        (user("anna", "role = \"viewer\"\npassword = \"s3cret!\""), "is no hash of a password"),
        ("[[revoked]]\nserial = \"anna\"\n".into(), "\"anna\" is no serial number"),
        (user("anna", "role = \"viewer\"").repeat(65).replace("\"anna\"", "\"a\""), "twice"),
    ] {
        let found = faults(&text);
        assert!(found.iter().any(|fault| fault.contains(said)), "{said}: {found:?}");
        assert!(!found.concat().contains("s3cret"), "{found:?}");
    }
    let many: String = (0..65).map(|it| user(&format!("u{it}"), "role = \"viewer\"")).collect();
    assert!(faults(&many)[0].contains("more than 64 users"), "{:?}", faults(&many));
}
