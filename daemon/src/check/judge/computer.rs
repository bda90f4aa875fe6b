//! What must be equal on both computers, and what of them Duolog needs.

use super::{At, Group::Computers, Line, both, equal};
use crate::check::facts::Gathered;

pub(super) fn versions(gathered: &Gathered) -> Vec<Line> {
    let at = At(Computers, "duolog", None);
    vec![equal(
        at,
        gathered,
        |facts| Some(facts.version.clone()),
        |at, said| {
            at.warning(said, "upgrade the older one; formats are kept, so both work meanwhile")
        },
    )]
}

pub(super) fn machine(gathered: &Gathered) -> Vec<Line> {
    let at = At(Computers, "architecture", None);
    vec![equal(
        at,
        gathered,
        |facts| Some(facts.machine.clone()),
        |at, said| {
            let mend = "use computers of one architecture: the files of an SQL server are not readable \
                    on another one";
            at.failed(said, mend)
        },
    )]
}

pub(super) fn libraries(gathered: &Gathered) -> Vec<Line> {
    let at = At(Computers, "C library", None);
    let order = "install the same version on both: the order of texts comes from it, and an index \
                 that was built by another order loses rows";
    let mut lines =
        vec![equal(at, gathered, |facts| facts.libc.clone(), |at, said| at.failed(said, order))];
    let known = both(gathered).all(|facts| !facts.servers.is_empty());
    let uses = both(gathered).any(|facts| facts.servers.iter().any(|it| it.icu.is_some()));
    if known && uses {
        let icu = |facts: &crate::check::facts::Facts| {
            let all: Vec<_> = facts.servers.iter().filter_map(|it| it.icu.clone()).collect();
            Some(if all.is_empty() { "none".into() } else { all.join(", ") })
        };
        let at = At(Computers, "ICU library", None);
        lines.push(equal(at, gathered, icu, |at, said| at.failed(said, order)));
    }
    lines
}

pub(super) fn users(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for user in &gathered.here.users {
        let at = At(Computers, "user of services", None);
        let name = &user.name;
        let missing: Vec<_> = both(gathered)
            .filter(|facts| facts.users.iter().any(|it| it.name == *name && it.ids.is_none()))
            .map(|facts| format!("node{}", facts.node))
            .collect();
        if !missing.is_empty() {
            let text = format!("there is no user {name} on {}", missing.join(" and "));
            lines.push(at.failed(text, "install the same packages on both computers"));
            continue;
        }
        let ids = |facts: &crate::check::facts::Facts| {
            let found = facts.users.iter().find(|it| it.name == *name)?;
            found.ids.map(|(uid, gid)| format!("{name} is {uid}:{gid}"))
        };
        lines.push(equal(at, gathered, ids, |at, said| {
            let mend = format!(
                "give {name} the same numbers on both computers (usermod -u, groupmod -g): files \
                 keep the number of their owner"
            );
            at.failed(said, mend)
        }));
    }
    lines
}

pub(super) fn fuse(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered) {
        let place = At(Computers, "FUSE", Some(facts.node));
        lines.push(match &facts.fuse.unusable {
            None => place.ok("/dev/fuse can be used"),
            Some(error) => place.failed(
                error.clone(),
                "load it with `modprobe fuse`, allow /dev/fuse in this container, or become root",
            ),
        });
        let place = At(Computers, "FUSE time-outs", Some(facts.node));
        let set = &facts.fuse.timeouts;
        lines.push(if set.is_empty() {
            place.ok("the kernel sets none")
        } else {
            let mend = set.iter().map(|name| format!("`sysctl -w {name}=0`"));
            let mend = mend.collect::<Vec<_>>().join(" and ");
            place.failed(
                format!("{}: the kernel would end a commit that waits", set.join(", ")),
                format!("set it with {mend}, and in /etc/sysctl.d for the next boot"),
            )
        });
    }
    lines
}

pub(super) fn security(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered) {
        let place = At(Computers, "SELinux", Some(facts.node));
        lines.push(if facts.selinux_enforces {
            place.warning(
                "it enforces, and files in a replicated directory have the label of FUSE",
                "let the SQL server use files on FUSE (`ausearch -m avc` shows what was denied), or \
                 make its domain permissive: semanage permissive -a postgresql_t, or mysqld_t",
            )
        } else {
            place.ok("it is not there, or does not enforce")
        });
        let place = At(Computers, "AppArmor", Some(facts.node));
        lines.push(if facts.apparmor.is_empty() {
            place.ok("no enforced profile is about an SQL server")
        } else {
            place.warning(
                format!("enforced: {}", facts.apparmor.join(", ")),
                "see that the profile allows the data directory and the sockets (`journalctl -k -g \
                 apparmor`), or put it to complain",
            )
        });
    }
    lines
}

pub(super) fn at_boot(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered).filter(|facts| facts.systemd) {
        let place = At(Computers, "start at boot", Some(facts.node));
        let (ours, others): (Vec<&String>, Vec<_>) =
            facts.at_boot.iter().partition(|unit| unit.starts_with("duolog"));
        if facts.has_services && !others.is_empty() {
            let names = others.iter().map(|name| name.as_str()).collect::<Vec<_>>();
            lines.push(place.failed(
                format!("systemd starts {} at boot, whatever this node is", names.join(", ")),
                format!(
                    "`systemctl disable --now {}`: Duolog starts services where the node serves",
                    names.join(" ")
                ),
            ));
        } else {
            lines.push(place.ok("systemd starts no SQL server"));
        }
        lines.push(if ours.iter().any(|unit| !unit.contains("witness")) {
            place.ok("systemd starts duolog")
        } else {
            place.warning(
                "systemd does not start duolog: after a power cut this node waits for somebody",
                "`systemctl enable duolog`",
            )
        });
    }
    lines
}
