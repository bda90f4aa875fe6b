//! What a run does: one operation of a file system's user, chosen at random.
//!
//! Names are few, so that operations meet: files are replaced, linked, renamed over and removed
//! while they are open. What cannot be compared between two file systems is not chosen.

use duolog_tests::random::Random;
use rustix::fs::{FallocateFlags, OFlags, RenameFlags, XattrFlags};

/// Most bytes of a file, but for those that a seek leaves behind.
const SIZE_MAX: u64 = 400_000;
/// Open files at a time.
pub(crate) const SLOTS: usize = 5;

/// An operation.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Open {
        slot: usize,
        path: String,
        flags: OFlags,
        mode: u32,
    },
    Unnamed {
        slot: usize,
        dir: String,
        mode: u32,
    },
    NameUnnamed {
        slot: usize,
        path: String,
    },
    Close {
        slot: usize,
    },
    Write {
        slot: usize,
        len: usize,
        fill: u64,
    },
    WriteAt {
        slot: usize,
        offset: u64,
        len: usize,
        fill: u64,
    },
    /// The bytes from `skip` on of a write that would go to `offset`.
    WritePart {
        slot: usize,
        offset: u64,
        skip: usize,
        len: usize,
        fill: u64,
    },
    /// Writes a page again that has changed a little.
    Amend {
        slot: usize,
        offset: u64,
        fill: u64,
    },
    WriteDirect {
        path: String,
        offset: u64,
        len: usize,
        fill: u64,
    },
    WriteMapped {
        slot: usize,
        offset: u64,
        len: usize,
        fill: u64,
    },
    ReadMapped {
        slot: usize,
        offset: u64,
        len: usize,
    },
    Read {
        slot: usize,
        offset: u64,
        len: usize,
    },
    ReadDirect {
        path: String,
        offset: u64,
        len: usize,
    },
    Resize {
        slot: usize,
        size: u64,
    },
    Allocate {
        slot: usize,
        flags: FallocateFlags,
        offset: u64,
        len: u64,
    },
    SeekData {
        slot: usize,
        offset: u64,
    },
    SeekHole {
        slot: usize,
        offset: u64,
    },
    Copy {
        from: usize,
        to: usize,
        from_offset: u64,
        to_offset: u64,
        len: usize,
    },
    Sync {
        slot: usize,
        data: bool,
    },
    SyncDirectory {
        path: String,
    },
    Look {
        slot: usize,
    },
    Truncate {
        path: String,
        size: u64,
    },
    SetXattr {
        path: String,
        name: &'static str,
        len: usize,
        fill: u64,
        flags: XattrFlags,
    },
    RemoveXattr {
        path: String,
        name: &'static str,
    },
    SetAcl {
        path: String,
        default: bool,
        permissions: u64,
    },
    RemoveAcl {
        path: String,
        default: bool,
    },
    Rename {
        from: String,
        to: String,
        flags: RenameFlags,
    },
    Remove {
        path: String,
    },
    RemoveDirectory {
        path: String,
    },
    MakeDirectory {
        path: String,
        mode: u32,
    },
    Link {
        from: String,
        to: String,
    },
    Symlink {
        target: String,
        path: String,
    },
    Special {
        path: String,
        kind: u32,
    },
    SetMode {
        path: String,
        mode: u32,
    },
    SetOwner {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    SetTimes {
        path: String,
        seconds: Option<i64>,
    },
    List {
        path: String,
    },
    Stat {
        path: String,
    },
    ReadFile {
        path: String,
    },
    ReadLink {
        path: String,
    },
}

/// What kinds of operations a run may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Any.
    All,
    /// All but ACLs, which only a kernel that knows of them enforces.
    WithoutAcls,
    /// Only those that are done as a whole or not at all, or, as writes are, page by page.
    Whole,
}

/// The next operation of a run, and whether an ordinary user does it.
pub(crate) fn choose(random: &mut Random, choice: Choice) -> (Operation, bool) {
    let as_user = choice != Choice::Whole && random.once_in(12);
    loop {
        let operation = operation(random, choice);
        let is_acl = matches!(operation, Operation::SetAcl { .. } | Operation::RemoveAcl { .. });
        if !is_acl || choice != Choice::WithoutAcls {
            return (operation, as_user);
        }
    }
}

fn operation(random: &mut Random, choice: Choice) -> Operation {
    let whole = choice == Choice::Whole;
    let slot = slot(random);
    let fill = random.bits();
    match random.between(0, 99) {
        0..=13 => Operation::Open {
            slot,
            path: path(random),
            flags: flags(random),
            mode: mode(random, whole),
        },
        14..=15 => Operation::Unnamed { slot, dir: directory(random), mode: mode(random, whole) },
        16..=17 => Operation::NameUnnamed { slot, path: path(random) },
        18..=19 => Operation::Close { slot },
        20..=25 => Operation::Write { slot, len: length(random, whole), fill },
        26..=31 => {
            Operation::WriteAt { slot, offset: offset(random), len: length(random, whole), fill }
        }
        32..=34 => {
            let page = if random.once_in(2) { 0 } else { random.between(0, SIZE_MAX / 4096) };
            Operation::Amend { slot, offset: page * 4096, fill }
        }
        35..=36 => {
            let (offset, len) = (random.between(0, 40) * 4096, aligned(random, whole));
            Operation::WriteDirect { path: path(random), offset, len, fill }
        }
        37..=39 => {
            Operation::WriteMapped { slot, offset: offset(random), len: small(random), fill }
        }
        40 => Operation::ReadMapped { slot, offset: offset(random), len: small(random) },
        41..=45 => Operation::Read { slot, offset: offset(random), len: length(random, false) },
        46 => {
            let (offset, len) = (random.between(0, 40) * 4096, aligned(random, false));
            Operation::ReadDirect { path: path(random), offset, len }
        }
        47..=49 => Operation::Resize { slot, size: offset(random) },
        50..=53 => {
            let all = [
                FallocateFlags::empty(),
                FallocateFlags::KEEP_SIZE,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                FallocateFlags::ZERO_RANGE,
                FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
            ];
            let flags = *pick(random, &all);
            Operation::Allocate {
                slot,
                flags,
                offset: offset(random),
                len: random.between(1, 90_000),
            }
        }
        54 => Operation::SeekData { slot, offset: offset(random) },
        55 => Operation::SeekHole { slot, offset: offset(random) },
        56..=57 => Operation::Copy {
            from: slot,
            to: self::slot(random),
            from_offset: offset(random),
            // Inside of one page it is one write.
            to_offset: if whole { random.between(0, 60) * 4096 } else { offset(random) },
            len: if whole { 4096 } else { length(random, false) },
        },
        58..=63 => Operation::Sync { slot, data: random.once_in(2) },
        64 => Operation::SyncDirectory { path: directory(random) },
        65 => Operation::Look { slot },
        66 => Operation::Truncate { path: path(random), size: offset(random) },
        67..=68 => Operation::SetXattr {
            path: path(random),
            name: xattr(random),
            len: usize::try_from(random.between(0, 200)).unwrap(),
            fill,
            flags: *pick(random, &[XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE]),
        },
        69 => Operation::RemoveXattr { path: path(random), name: xattr(random) },
        70 => {
            Operation::SetAcl { path: path(random), default: random.once_in(2), permissions: fill }
        }
        71 => Operation::RemoveAcl { path: path(random), default: random.once_in(2) },
        72..=76 => Operation::Rename {
            from: path(random),
            to: path(random),
            flags: *pick(
                random,
                &[
                    RenameFlags::empty(),
                    RenameFlags::empty(),
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                ],
            ),
        },
        77..=79 => Operation::Remove { path: path(random) },
        80 => Operation::RemoveDirectory { path: path(random) },
        81..=83 => Operation::MakeDirectory { path: path(random), mode: mode(random, whole) },
        84..=85 => Operation::Link { from: path(random), to: path(random) },
        86 => Operation::Symlink { target: path(random), path: path(random) },
        87 => {
            let kind = *pick(random, &[0o100_000, 0o010_000, 0o140_000]);
            Operation::Special { path: path(random), kind }
        }
        88..=89 => Operation::SetMode { path: path(random), mode: mode(random, whole) },
        90 => {
            let owner = |random: &mut Random| *pick(random, &[None, Some(0), Some(1000), Some(7)]);
            let (path, uid) = (path(random), owner(random));
            // Naming neither takes set-id bits away, which the kernel does not tell FUSE.
            let gid = owner(random).or(uid.is_none().then_some(7));
            Operation::SetOwner { path, uid, gid }
        }
        91 => {
            let seconds = random.once_in(2).then(|| i64::try_from(fill % (1 << 31)).unwrap());
            Operation::SetTimes { path: path(random), seconds }
        }
        92..=93 => Operation::List { path: directory(random) },
        94..=96 => Operation::Stat { path: path(random) },
        97..=98 => Operation::ReadFile { path: path(random) },
        _ => Operation::ReadLink { path: path(random) },
    }
}

fn pick<'a, T>(random: &mut Random, all: &'a [T]) -> &'a T {
    &all[usize::try_from(random.between(0, all.len() as u64 - 1)).unwrap()]
}

fn slot(random: &mut Random) -> usize {
    usize::try_from(random.between(0, SLOTS as u64 - 1)).unwrap()
}

fn directory(random: &mut Random) -> String {
    (*pick(random, &[".", ".", "a", "a", "b", "a/b", "c"])).to_owned()
}

fn path(random: &mut Random) -> String {
    if random.once_in(400) {
        return "n".repeat(usize::try_from(random.between(254, 257)).unwrap());
    }
    let name = *pick(random, &["f0", "f1", "f2", "f3", "f4", "f5", "a", "b", "c"]);
    format!("{}/{name}", directory(random))
}

fn xattr(random: &mut Random) -> &'static str {
    const NAMES: [&str; 5] =
        ["user.one", "user.two", "trusted.three", "security.four", "system.none"];
    NAMES[usize::try_from(random.between(0, 4)).unwrap()]
}

/// Ends somewhere, at the edge of a page or near it.
fn offset(random: &mut Random) -> u64 {
    let pages = random.between(0, SIZE_MAX / 4096) * 4096;
    match random.between(0, 3) {
        0 => pages,
        1 => pages + random.between(0, 3),
        2 => random.between(0, 5000),
        _ => random.between(0, SIZE_MAX),
    }
}

fn length(random: &mut Random, whole: bool) -> usize {
    let max = match random.between(0, 20) {
        0 if !whole => 1 << 20,
        0..=4 => 300_000,
        5..=12 => 20_000,
        _ => 600,
    };
    usize::try_from(random.between(1, max)).unwrap()
}

fn small(random: &mut Random) -> usize {
    usize::try_from(random.between(1, 4096)).unwrap()
}

fn aligned(random: &mut Random, whole: bool) -> usize {
    let max = if random.once_in(10) && !whole { 256 } else { 16 };
    usize::try_from(random.between(1, max)).unwrap() * 4096
}

fn mode(random: &mut Random, whole: bool) -> u32 {
    let mode =
        *pick(random, &[0o644, 0o600, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o2775, 0o1777, 0]);
    // Taking set-id bits away is a record of its own.
    if whole { mode & 0o1777 } else { mode }
}

fn flags(random: &mut Random) -> OFlags {
    let mut flags =
        *pick(random, &[OFlags::RDWR, OFlags::RDWR, OFlags::RDWR, OFlags::WRONLY, OFlags::RDONLY]);
    for (flag, once_in) in [
        (OFlags::APPEND, 6),
        (OFlags::EXCL, 8),
        (OFlags::TRUNC, 6),
        (OFlags::DSYNC, 12),
        (OFlags::SYNC, 12),
        (OFlags::NOFOLLOW, 4),
    ] {
        if random.once_in(once_in) {
            flags |= flag;
        }
    }
    // Without a file to make, O_EXCL means nothing that is defined.
    if flags.contains(OFlags::EXCL) || !random.once_in(4) {
        flags |= OFlags::CREATE;
    }
    flags | OFlags::CLOEXEC | OFlags::NONBLOCK
}
