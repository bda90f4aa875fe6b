//! The user as which a service runs, from `/etc/passwd` and `/etc/group`. Never asks a network.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::fs::{Gid, Uid};

/// A user of this computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: Uid,
    /// The number of its group.
    pub gid: Gid,
    /// The numbers of all of its groups.
    pub groups: Vec<Gid>,
    /// Its directory.
    pub home: PathBuf,
}

impl User {
    /// Looks it up; nothing when there is none of that name.
    pub(super) fn named(name: &str) -> io::Result<Option<Self>> {
        let passwd = fs::read_to_string("/etc/passwd")?;
        let groups = fs::read_to_string("/etc/group")?;
        Ok(Self::find(name, &passwd, &groups))
    }

    fn find(name: &str, passwd: &str, groups: &str) -> Option<Self> {
        let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let user = lines.find(|fields| fields.first() == Some(&name))?;
        let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        let gid = Gid::from_raw(id(user.get(3)?)?);
        let mut all = vec![gid];
        for line in groups.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let [_, _, group, members] = fields[..] else { continue };
            if members.split(',').any(|member| member.trim() == name)
                && let Some(group) = id(group).map(Gid::from_raw)
                && !all.contains(&group)
            {
                all.push(group);
            }
        }
        let uid = Uid::from_raw(id(user.get(2)?)?);
        let home = PathBuf::from(OsString::from(user.get(5)?));
        Some(Self { name: name.into(), uid, gid, groups: all, home })
    }
}

/// The numbers of a user and of its group, if there is such a user.
///
/// # Errors
/// The files that local users are in cannot be read.
pub(crate) fn ids_of(name: &str) -> io::Result<Option<(u32, u32)>> {
    let user = User::named(name)?;
    Ok(user.map(|user| (user.uid.as_raw(), user.gid.as_raw())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_name_it() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/sh\n";
        let groups =
            "root:x:0:\nssl-cert:x:103:www, postgres\npostgres:x:104:postgres\nx:x:9:postgresql\n";
        let user = User::find("postgres", passwd, groups).unwrap();
        assert_eq!((user.uid, user.gid), (Uid::from_raw(101), Gid::from_raw(104)));
        assert_eq!(user.groups, [104, 103].map(Gid::from_raw));
        assert_eq!(user.home, PathBuf::from("/var/lib/postgresql"));
        assert_eq!(User::find("postgre", passwd, groups), None);
    }
}
