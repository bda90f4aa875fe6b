//! What a witness must never forget of a pair: its own identity there, and the register.
//!
//! ```text
//! at  size  field                                       file: CLUSTER.witness in state_dir
//!  0     4  magic     "DLWT"
//!  4     2  version   1
//!  6     1  known     1: a register follows; 0: no view is known yet, and it is zeros
//!  7     1  reserved  zero
//!  8    16  cluster
//! 24    16  identity  random, made with the file; never zero
//! 40    32  register  the highest view that is known, as in the control block of a node
//! 72     4  crc       CRC-32C of everything before
//! ```
//! Little-endian. Always replaced whole: written under another name, synced, renamed, the
//! directory synced. A file that was read is written again before anything of it is said: what
//! reads back may never have reached the disk.

use std::sync::Arc;

use duolog_beat::random;
use duolog_engine::disk::{Disk, DiskFile, replace};
use duolog_wal::view::VIEW_LEN;
use duolog_wal::{ClusterId, View};

const MAGIC: u32 = u32::from_le_bytes(*b"DLWT");
const VERSION: u16 = 1;
const CRC_AT: usize = 40 + VIEW_LEN;
const STATE_LEN: usize = CRC_AT + 4;

/// A pair's file.
#[derive(Debug)]
pub(super) struct State<D> {
    disk: Arc<D>,
    cluster: ClusterId,
    wid: u128,
}

impl<D: Disk> State<D> {
    /// Reads the file, or makes one with a new identity. On disk when it returns.
    pub(super) fn open(
        disk: &Arc<D>,
        cluster: ClusterId,
    ) -> Result<(Self, Option<View>), StateError> {
        let name = name(cluster);
        let read = match disk.open(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            opened => {
                let mut bytes = Vec::new();
                opened
                    .and_then(|file| file.read_whole(&mut bytes))
                    .map_err(|source| StateError::Io { name: name.clone(), source })?;
                Some(bytes)
            }
        };
        let (wid, reg) = if let Some(bytes) = read {
            decode(&bytes, cluster).ok_or(StateError::Damaged { name })?
        } else {
            let wid = random().map_err(|source| StateError::Random { source })?;
            (u128::from_le_bytes(wid).max(1), None)
        };
        let state = Self { disk: Arc::clone(disk), cluster, wid };
        state.write(reg)?;
        Ok((state, reg))
    }

    /// Its identity: another file, another one.
    pub(super) const fn wid(&self) -> u128 {
        self.wid
    }

    /// Puts the register on disk.
    pub(super) fn write(&self, reg: Option<View>) -> Result<(), StateError> {
        let name = name(self.cluster);
        match replace(&*self.disk, &name, &encode(self.cluster, self.wid, reg)) {
            Ok(_) => Ok(()),
            Err(source) => Err(StateError::Io { name, source }),
        }
    }
}

fn name(cluster: ClusterId) -> String {
    format!("{cluster}.witness")
}

fn encode(cluster: ClusterId, wid: u128, reg: Option<View>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STATE_LEN);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([u8::from(reg.is_some()), 0]);
    bytes.extend(cluster.0.to_le_bytes());
    bytes.extend(wid.to_le_bytes());
    bytes.extend(reg.map_or([0; VIEW_LEN], |view| view.to_bytes()));
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], cluster: ClusterId) -> Option<(u128, Option<View>)> {
    let bytes: &[u8; STATE_LEN] = bytes.try_into().ok()?;
    let crc = u32::from_le_bytes(*bytes[CRC_AT..].first_chunk()?);
    let good = crc == crc32c::crc32c(&bytes[..CRC_AT])
        && u32::from_le_bytes(*bytes.first_chunk()?) == MAGIC
        && u16::from_le_bytes(*bytes[4..].first_chunk()?) == VERSION
        && u128::from_le_bytes(*bytes[8..].first_chunk()?) == cluster.0;
    let wid = u128::from_le_bytes(*bytes[24..].first_chunk()?);
    let view = bytes[40..].first_chunk()?;
    let reg = match (bytes[6], bytes[7]) {
        (0, 0) if *view == [0; VIEW_LEN] => None,
        (1, 0) => Some(View::from_bytes(view)?),
        _ => return None,
    };
    (good && wid != 0).then_some((wid, reg))
}

/// Why a pair cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// The file is not what was written.
    #[error(
        "{name} in state_dir is damaged or of another pair. What it granted is not known, so it \
         is not used. Move it away: the pair then has a new witness, which it takes up by itself \
         while both nodes are connected or one is ALONE; until then neither may take over"
    )]
    Damaged {
        /// Of the file.
        name: String,
    },
    /// The disk fails.
    #[error("cannot read or write {name} in state_dir; mend the disk or make room on it")]
    Io {
        /// Of the file.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No identity.
    #[error("no identity can be made")]
    Random {
        /// Why not.
        source: duolog_beat::KeyError,
    },
}

#[cfg(test)]
mod tests {
    use duolog_engine::disk::DirDisk;
    use duolog_wal::{NodeId, ViewNum};

    use super::*;

    const PAIR: ClusterId = ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

    fn view() -> View {
        View {
            num: ViewNum(5),
            primary: NodeId::Node2,
            pair: false,
            witness: 9,
            origin: NodeId::Node2,
            forced: false,
        }
    }

    /// Written down once: a witness must read what the one before it wrote.
    #[test]
    fn a_file_keeps_its_bytes() {
        let bytes = encode(PAIR, 9, Some(view()));
        let mut golden = b"DLWT\x01\x00\x01\x00".to_vec();
        golden.extend(0..16);
        golden.push(9);
        golden.extend([0; 15]);
        golden.extend([5, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend([0; 15]);
        golden.extend([0xfc, 0xc9, 0x7a, 0x6a]);
        assert_eq!(bytes, golden);
        assert_eq!(decode(&golden, PAIR), Some((9, Some(view()))));
        let none = encode(PAIR, 9, None);
        assert_eq!(decode(&none, PAIR), Some((9, None)));
    }

    #[test]
    fn a_changed_byte_a_part_or_another_pairs_file_is_not_used() {
        let bytes = encode(PAIR, 9, Some(view()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed, PAIR), None, "byte {at}");
            assert_eq!(decode(&bytes[..at], PAIR), None, "{at} bytes");
        }
        assert_eq!(decode(&bytes, ClusterId(8)), None);
        assert_eq!(decode(&[&bytes[..], &[0]].concat(), PAIR), None);
    }

    #[test]
    fn identity_and_register_are_there_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(DirDisk::open(directory.path()).unwrap());
        let (state, reg) = State::open(&disk, PAIR).unwrap();
        assert_eq!(reg, None);
        let (again, reg) = State::open(&disk, PAIR).unwrap();
        assert_eq!((again.wid(), reg), (state.wid(), None));
        again.write(Some(view())).unwrap();
        let (again, reg) = State::open(&disk, PAIR).unwrap();
        assert_eq!((again.wid(), reg), (state.wid(), Some(view())));
        let (other, _) = State::open(&disk, ClusterId(8)).unwrap();
        assert_ne!(other.wid(), state.wid());

        let path = directory.path().join(name(PAIR));
        std::fs::write(&path, b"rubbish").unwrap();
        let refused = State::open(&disk, PAIR).unwrap_err();
        assert!(matches!(refused, StateError::Damaged { .. }), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"rubbish", "evidence was written over");
        std::fs::remove_file(&path).unwrap();
        assert_ne!(State::open(&disk, PAIR).unwrap().0.wid(), state.wid(), "a new identity");
    }
}
