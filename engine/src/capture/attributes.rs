//! Owner, permissions, times and size.

use duolog_wal::{Attributes, FileId, FileTime, Operation};
use rustix::io::Errno;

use super::{Caller, Capture, Done, TTL, errno};
use crate::fuse::{Reply, SetAttr, TimeOrNow};
use crate::node::Content;

impl Capture {
    pub(super) fn get_attr(&self, id: FileId, reply: Reply) {
        match self.attr(id) {
            Ok(attr) => reply.attr(&attr, TTL),
            Err(error) => reply.error(error),
        }
    }

    pub(super) fn set_attr(&self, id: FileId, set: &SetAttr, caller: Caller, reply: Reply) {
        let capture = self.clone();
        let done: Done = Box::new(move |result| match result.and_then(|()| capture.attr(id)) {
            Ok(attr) => reply.attr(&attr, TTL),
            Err(error) => reply.error(error),
        });
        let attributes = match self.attributes(id, set, caller) {
            Ok(attributes) => attributes,
            Err(error) => return done(Err(error)),
        };
        if let Some(size) = set.size {
            // The size first: setting it stamps the times, which may be set explicitly too.
            if attributes == Attributes::default() {
                return self.truncate(id, size, None, done);
            }
            let capture = self.clone();
            let then: Done = Box::new(move |result| match result {
                Ok(()) => capture.set(id, attributes, done),
                Err(error) => done(Err(error)),
            });
            return self.truncate(id, size, None, then);
        }
        self.set(id, attributes, done);
    }

    fn set(&self, id: FileId, attributes: Attributes, done: Done) {
        self.submit(&Operation::SetAttributes { id, attributes }, &[id], done);
    }

    /// What the log is to say, with nothing left to the file system that applies it: it would
    /// clear suid bits on chown, and take its own clock.
    fn attributes(&self, id: FileId, set: &SetAttr, caller: Caller) -> Result<Attributes, Errno> {
        let chown = set.uid.is_some() || set.gid.is_some();
        let mut mode = set.mode.map(|mode| mode & 0o7777);
        if chown || set.kill_suidgid {
            let stat = self.node.store.stat(id).map_err(errno)?;
            let may_chown = rustix::process::geteuid().is_root();
            if !may_chown
                && (set.uid.is_some_and(|uid| uid != stat.uid)
                    || set.gid.is_some_and(|gid| gid != stat.gid))
            {
                return Err(Errno::PERM);
            }
            let is_directory = stat.mode & libc::S_IFMT == libc::S_IFDIR;
            let is_link = stat.mode & libc::S_IFMT == libc::S_IFLNK;
            let mut kept = mode.unwrap_or(stat.mode & 0o7777);
            if set.kill_suidgid && !is_directory && set.mode.is_none() {
                kept = without_suidgid(kept, stat.gid, caller);
            }
            if !is_link
                && (mode.is_some()
                    || !is_directory && kept & 0o6000 != 0
                    || kept != stat.mode & 0o7777)
            {
                mode = Some(kept);
            }
        }
        Ok(Attributes {
            mode,
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(moment),
            mtime: set.mtime.map(moment),
        })
    }

    /// Whoever writes to a file takes its suid and sgid bits away, but for who may leave them.
    pub(super) fn kill_suidgid(&self, id: FileId, kills: Option<Caller>) -> Result<(), Errno> {
        let Some(caller) = kills else { return Ok(()) };
        let applied = self.node.applied();
        let stat = self.node.store.stat(id).map_err(errno)?;
        let pending = self.node.overlay.get(id);
        let pending = pending.and_then(|content| Content::lock(&content).mode(applied));
        let mode = pending.unwrap_or(stat.mode & 0o7777);
        let kept = without_suidgid(mode, stat.gid, caller);
        if kept == mode || stat.mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(());
        }
        let attributes = Attributes { mode: Some(kept), ..Attributes::default() };
        let operation = Operation::SetAttributes { id, attributes };
        if id.is_local() {
            return self
                .node
                .store
                .apply_local(&operation, crate::node::now())
                .map_err(|error| super::apply_errno(&error));
        }
        let content = self.node.overlay.file(id);
        let mut content = Content::lock(&content);
        let appended = self.append(&operation, &[])?;
        content.set_mode(appended.end, kept);
        Ok(())
    }
}

/// Without execution by its group, sgid stays for who is in that group. Of groups the caller's
/// first one is known here and no other.
fn without_suidgid(mode: u32, gid: u32, caller: Caller) -> u32 {
    let stranger = caller.uid != 0 && caller.gid != gid;
    let sgid = if mode & libc::S_IXGRP != 0 || stranger { libc::S_ISGID } else { 0 };
    mode & !(libc::S_ISUID | sgid)
}

fn moment(time: TimeOrNow) -> FileTime {
    match time {
        TimeOrNow::Time(time) => FileTime { seconds: time.secs, nanos: time.nanos },
        TimeOrNow::Now => crate::node::now().into(),
    }
}
