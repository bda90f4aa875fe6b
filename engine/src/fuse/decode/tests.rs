//! Requests as the kernel lays them out, and what must be read in each.

use proptest::prelude::*;

use super::super::abi::bytes_of;
use super::*;

fn request(opcode: u32, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let len = u32::try_from(size_of::<InHeader>() + body.len()).unwrap();
    let header = InHeader { len, opcode, unique: 2, nodeid: 7, ..InHeader::default() };
    [bytes_of(&header), &body].concat()
}

fn op_of(bytes: &[u8], agreed: InitFlags) -> Result<Op<'_>, Malformed> {
    let (header, body) = split_header(bytes)?;
    match decode(&header, body, agreed)? {
        Decoded::Handler(op) => Ok(op),
        other => panic!("not for the handler: {other:?}"),
    }
}

#[test]
fn a_write_carries_its_data_and_what_it_may_clear() {
    let write = abi::WriteIn {
        fh: 3,
        offset: 8192,
        size: 4,
        write_flags: abi::WRITE_CACHE | abi::WRITE_KILL_SUIDGID,
        ..abi::WriteIn::default()
    };
    let bytes = request(opcode::WRITE, &[bytes_of(&write), b"data"]);
    let op = op_of(&bytes, InitFlags::NONE).unwrap();
    let Op::Write { fh: 3, offset: 8192, data: b"data", cache: true, kill_suidgid: true, .. } = op
    else {
        panic!("{op:?}");
    };
    let short = request(opcode::WRITE, &[bytes_of(&write), b"dat"]);
    assert_eq!(
        op_of(&short, InitFlags::NONE).unwrap_err(),
        Malformed::Body { opcode: opcode::WRITE }
    );
}

#[test]
fn only_the_attributes_that_are_meant_are_set() {
    let all = abi::SetAttrIn {
        valid: 0,
        fh: 1,
        size: 2,
        atime: 3,
        mtime: (-4_i64).cast_unsigned(),
        ctime: 5,
        atimensec: 6,
        mtimensec: 7,
        ctimensec: 8,
        mode: 9,
        uid: 10,
        gid: 11,
        ..abi::SetAttrIn::default()
    };
    assert_eq!(set_attr(&all), SetAttr::default());
    let with = |valid| set_attr(&abi::SetAttrIn { valid, ..all });
    let none = SetAttr::default();
    let time = |secs, nanos| TimeOrNow::Time(Timestamp { secs, nanos });
    assert_eq!(with(1 << 0), SetAttr { mode: Some(9), ..none });
    assert_eq!(with(1 << 1), SetAttr { uid: Some(10), ..none });
    assert_eq!(with(1 << 2), SetAttr { gid: Some(11), ..none });
    assert_eq!(with(1 << 3), SetAttr { size: Some(2), ..none });
    assert_eq!(with(1 << 4), SetAttr { atime: Some(time(3, 6)), ..none });
    assert_eq!(with(1 << 5), SetAttr { mtime: Some(time(-4, 7)), ..none });
    assert_eq!(with(1 << 6), SetAttr { fh: Some(1), ..none });
    assert_eq!(with(1 << 4 | 1 << 7), SetAttr { atime: Some(TimeOrNow::Now), ..none });
    assert_eq!(with(1 << 5 | 1 << 8), SetAttr { mtime: Some(TimeOrNow::Now), ..none });
    assert_eq!(with(1 << 10), SetAttr { ctime: Some(Timestamp { secs: 5, nanos: 8 }), ..none });
    assert_eq!(with(1 << 11), SetAttr { kill_suidgid: true, ..none });
}

#[test]
fn an_extended_attribute_is_read_as_agreed() {
    let set = abi::SetXattrIn { size: 3, flags: 1 };
    let more = abi::SetXattrInExtension { setxattr_flags: 1, padding: 0 };
    let long = request(opcode::SETXATTR, &[bytes_of(&set), bytes_of(&more), b"user.a\0abc"]);
    let op = op_of(&long, InitFlags::SETXATTR_EXT).unwrap();
    let Op::SetXattr { name: b"user.a", value: b"abc", flags: 1, acl_kills_sgid: true } = op else {
        panic!("{op:?}");
    };
    let short = request(opcode::SETXATTR, &[bytes_of(&set), b"user.a\0abc"]);
    let op = op_of(&short, InitFlags::NONE).unwrap();
    let Op::SetXattr { name: b"user.a", value: b"abc", acl_kills_sgid: false, .. } = op else {
        panic!("{op:?}");
    };
}

#[test]
fn forgets_come_one_by_one_or_in_a_batch() {
    let one = request(opcode::FORGET, &[bytes_of(&abi::ForgetIn { nlookup: 3 })]);
    let Ok(Op::Forget { nodes }) = op_of(&one, InitFlags::NONE) else { panic!() };
    assert_eq!(nodes.iter().collect::<Vec<_>>(), [Forget { node: 7, lookups: 3 }]);
    let batch = |count| {
        let head = abi::BatchForgetIn { count, dummy: 0 };
        let (a, b) =
            (abi::ForgetOne { nodeid: 8, nlookup: 1 }, abi::ForgetOne { nodeid: 9, nlookup: 2 });
        request(opcode::BATCH_FORGET, &[bytes_of(&head), bytes_of(&a), bytes_of(&b)])
    };
    let two = batch(2);
    let Ok(Op::Forget { nodes }) = op_of(&two, InitFlags::NONE) else { panic!() };
    let wanted = [Forget { node: 8, lookups: 1 }, Forget { node: 9, lookups: 2 }];
    assert_eq!(nodes.iter().collect::<Vec<_>>(), wanted);
    for wrong in [3, u32::MAX] {
        assert!(op_of(&batch(wrong), InitFlags::NONE).is_err());
    }
}

#[test]
fn names_end_where_they_say() {
    let rename = abi::Rename2In { newdir: 5, flags: 2, padding: 0 };
    let bytes = request(opcode::RENAME2, &[bytes_of(&rename), b"old\0new\0"]);
    let op = op_of(&bytes, InitFlags::NONE).unwrap();
    let Op::Rename { name: b"old", new_parent: 5, new_name: b"new", flags: 2 } = op else {
        panic!("{op:?}");
    };
    for wrong in [&b"old\0new"[..], b"old\0\0", b"\0new\0", b"old", b""] {
        let bytes = request(opcode::RENAME2, &[bytes_of(&rename), wrong]);
        assert!(op_of(&bytes, InitFlags::NONE).is_err(), "{wrong:?}");
    }
}

#[test]
fn extensions_are_no_part_of_the_body() {
    let mut bytes = request(opcode::LOOKUP, &[b"name\0\0\0\0", b"extended"]);
    // `extensions_len`, in units of 8 bytes.
    bytes[36] = 1;
    bytes[37] = 0;
    if cfg!(target_endian = "big") {
        bytes.swap(36, 37);
    }
    let (_, body) = split_header(&bytes).unwrap();
    assert_eq!(body, b"name\0\0\0\0");
    bytes[36] = 200;
    bytes[37] = 200;
    assert_eq!(split_header(&bytes).unwrap_err(), Malformed::Header);
    assert_eq!(split_header(&bytes[..39]).unwrap_err(), Malformed::Header);
    assert_eq!(split_header(&bytes[..41]).unwrap_err(), Malformed::Header);
}

proptest! {
    #[test]
    fn nothing_that_the_kernel_sends_panics(
        opcode in 0_u32..60,
        body in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200),
        flags in any::<u64>(),
    ) {
        let bytes = request(opcode, &[&body]);
        let (header, body) = split_header(&bytes).unwrap();
        if let Ok(Decoded::Handler(Op::Forget { nodes })) = decode(&header, body, InitFlags(flags)) {
            prop_assert!(nodes.iter().count() <= body.len());
        }
    }
}
