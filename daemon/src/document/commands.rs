//! What of the pair's settings makes the nodes run something, and what decides whose word a node takes:
//! whoever may change that is root on both computers. So a console changes none of it unless the node's
//! own file, which no console changes, says that it may. Pure.

use std::collections::BTreeSet;

use crate::config::checkers::CheckKind;
use crate::config::{People, Service, Shared};

/// What is run, by the key that says it: that key, the words, and as whom.
type Run = (&'static str, Vec<String>, Option<String>);

/// Which keys of `new` have something run that `was` does not, or have other keys of nodes count than
/// there; none where all that is new is harmless. What is run less is: an administrator may stop services
/// anyway.
pub(super) fn new_commands(was: Option<&Shared>, new: &Shared) -> Vec<&'static str> {
    let known = was.map(runs).unwrap_or_default();
    let mut keys: BTreeSet<_> = runs(new).difference(&known).map(|(key, ..)| *key).collect();
    let (nobody, now) = (People::default(), &new.people);
    let before = was.map_or(&nobody, |was| &was.people);
    // A node whose key is another one's sends what the SQL server here is to run with. And where a key
    // counts no more the nodes are cut off from each other: nobody there is asked, and no console undoes it.
    keys.extend(differ(&before.pins, &now.pins).then_some("pin"));
    keys.extend(differ(&before.revoked_keys, &now.revoked_keys).then_some("revoked"));
    keys.into_iter().collect()
}

/// Whether one of them holds what the other one does not, in whatever order.
fn differ<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    let lacks = |one: &[T], other: &[T]| other.iter().any(|it| !one.contains(it));
    lacks(one, other) || lacks(other, one)
}

fn runs(settings: &Shared) -> BTreeSet<Run> {
    let mut runs: BTreeSet<Run> = settings.services.iter().flat_map(of_service).collect();
    runs.insert(("pair.notify", settings.pair.notify.clone(), None));
    runs.insert(("pair.drop_address", settings.pair.drop_address.clone(), None));
    runs.retain(|(_, words, _)| !words.is_empty());
    runs
}

fn of_service(service: &Service) -> Vec<Run> {
    let Service { unit, start, stop, check, user, checkers, .. } = service;
    let run = |key, words: &[String]| (key, words.to_vec(), user.clone());
    let mut runs = vec![
        run("service.unit", unit.as_slice()),
        run("service.start", start),
        run("service.stop", stop),
        run("service.check", check),
    ];
    for checker in checkers {
        match &checker.kind {
            CheckKind::Sql { command } => runs.push(run("service.checker.query", command)),
            CheckKind::Command { command } => runs.push(run("service.checker.command", command)),
            CheckKind::Tcp { .. } | CheckKind::Http { .. } => {}
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Around;

    fn read(text: &str) -> Shared {
        Shared::parse(text, &Around::unknown(true)).unwrap()
    }

    const WAS: &str = "[pair]\nnotify = [\"/bin/tell\"]\n[[service]]\nname = \"one\"\nstart = [\"/bin/one\"]\n\
        user = \"one\"\ncheck = [\"/bin/is\"]\n[[service.checker]]\nkind = \"command\"\ncommand = [\"/bin/ask\", \"a\"]\n\
        [[service.checker]]\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n";

    fn new(from: &str, to: &str) -> Vec<&'static str> {
        assert!(WAS.contains(from), "{from}");
        new_commands(Some(&read(WAS)), &read(&WAS.replacen(from, to, 1)))
    }

    #[test]
    fn what_is_run_anew_is_found_whatever_key_says_it() {
        assert_eq!(new("/bin/tell", "/bin/sh"), ["pair.notify"]);
        assert_eq!(
            new("[pair]\n", "[pair]\ndrop_address = [\"/bin/sh\"]\n"),
            ["pair.drop_address"]
        );
        assert_eq!(new("start = [\"/bin/one\"]", "start = [\"/bin/sh\"]"), ["service.start"]);
        assert_eq!(new("/bin/is", "/bin/sh"), ["service.check"]);
        assert_eq!(new("\"a\"", "\"b\""), ["service.checker.command"]);
        let stop = new("user = \"one\"", "user = \"one\"\nstop = [\"/bin/sh\"]");
        assert_eq!(stop, ["service.stop"]);
        let unit = new("start = [\"/bin/one\"]", "unit = \"two.service\"");
        assert_eq!(unit, ["service.unit"]);
        // The same by somebody else is something else.
        let user = new("user = \"one\"", "user = \"root\"");
        assert_eq!(user, ["service.check", "service.checker.command", "service.start"]);
        let preset = "[[service]]\npreset = \"postgresql\"\nname = \"db\"\ndata = \"/data\"\nprograms = \"/bin\"\n";
        let before = read(preset);
        let asks = format!(
            "{preset}[[service.checker]]\nkind = \"sql\"\nquery = \"COPY a TO PROGRAM 'sh'\"\n"
        );
        assert_eq!(new_commands(Some(&before), &read(&asks)), ["service.checker.query"]);
        let programs = read(&preset.replace("\"/bin\"", "\"/tmp\""));
        let all = ["service.check", "service.checker.query", "service.start"];
        assert_eq!(new_commands(Some(&before), &programs), all);
        assert_eq!(new_commands(None, &read(WAS)).len(), 4);
    }

    #[test]
    fn keys_of_nodes_are_no_less() {
        let key = format!("sha256:{}", "1".repeat(64));
        let pinned = format!("{WAS}[[pin]]\nnode = 2\nkey = \"{key}\"\n");
        assert_eq!(new_commands(Some(&read(WAS)), &read(&pinned)), ["pin"]);
        assert_eq!(new_commands(Some(&read(&pinned)), &read(WAS)), ["pin"]);
        assert!(new_commands(None, &read(&pinned)).contains(&"pin"));
        let revoked = format!("{WAS}[[revoked]]\nkey = \"{key}\"\n");
        assert_eq!(new_commands(Some(&read(&revoked)), &read(WAS)), ["revoked"]);
        // It cuts the nodes off from each other, and no console could take it back.
        assert_eq!(new_commands(Some(&read(WAS)), &read(&revoked)), ["revoked"]);
        // A user's certificate is no node's key, and what stays the same is not new in another order.
        let serial = format!("{WAS}[[revoked]]\nserial = \"0a:0b\"\n");
        assert!(new_commands(Some(&read(WAS)), &read(&serial)).is_empty());
        let other = format!("[[revoked]]\nkey = \"sha256:{}\"\n", "2".repeat(64));
        let both =
            [format!("{revoked}{other}"), format!("{WAS}{other}[[revoked]]\nkey = \"{key}\"\n")];
        assert!(new_commands(Some(&read(&both[0])), &read(&both[1])).is_empty());
    }

    #[test]
    fn what_runs_nothing_new_is_left_alone() {
        assert!(new("127.0.0.1:1", "127.0.0.1:2").is_empty());
        assert!(new("[pair]\n", "[pair]\nauto_rejoin = true\n").is_empty());
        assert!(new("user = \"one\"", "user = \"one\"\nrestarts = 3").is_empty());
        assert!(new("notify = [\"/bin/tell\"]\n", "").is_empty(), "it is run no more");
        let services = WAS.split_once("[[service]]").unwrap().0;
        assert!(new_commands(Some(&read(WAS)), &read(services)).is_empty());
    }
}
