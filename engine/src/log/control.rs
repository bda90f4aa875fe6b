//! The file that holds the control block. Each update is durable before it returns.

use std::io::{self, IoSlice};
use std::sync::Mutex;

use duolog_wal::Control;
use duolog_wal::control::{CONTROL_LEN, ControlError};

use super::UNBROKEN;
use crate::disk::{DirDisk, Disk, DiskFile, replace};

/// Why the control block cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ControlFileError {
    /// The file holds no control block that can be used.
    #[error("the file {NAME} of the log: set this node up again from its peer")]
    Unusable(#[source] ControlError),
    /// There is one already.
    #[error("the directory has a control block already")]
    Exists,
    /// An update failed before: what stands on disk is not known until a restart.
    #[error("the control block failed to sync and is closed: check the disk, then restart")]
    Poisoned,
    /// The disk failed.
    #[error("the file {NAME} of the log")]
    Io(#[from] io::Error),
}

/// The control block on disk and in memory.
pub struct ControlFile<D: Disk = DirDisk> {
    file: D::File,
    /// As it stands on disk; locked to copy it, never while a disk is waited for.
    stands: Mutex<Control>,
    /// Held by the one who changes it, for as long as the disk takes.
    changing: Mutex<Changing>,
}

#[derive(Default)]
struct Changing {
    poisoned: bool,
}

const NAME: &str = "control";

impl<D: Disk> std::fmt::Debug for ControlFile<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlFile").field("control", &self.get()).finish_non_exhaustive()
    }
}

impl<D: Disk> ControlFile<D> {
    /// Writes the first control block. It is what makes a node's directory one, so it is the
    /// last thing that setting up does.
    pub fn create(disk: &D, control: Control) -> Result<Self, ControlFileError> {
        if disk.list()?.iter().any(|name| name == NAME) {
            return Err(ControlFileError::Exists);
        }
        let mut bytes = vec![0; 2 * CONTROL_LEN];
        let at = usize::try_from(Control::place(control.sequence)).map_err(io::Error::other)?;
        bytes[at..at + CONTROL_LEN].copy_from_slice(&control.encode());
        let file = replace(disk, NAME, &bytes)?;
        Ok(Self::standing(file, control))
    }

    /// Reads the control block, `None` if there is none. What was read may be in the page cache
    /// alone, so it is written again and synced before anything builds on it.
    pub fn load(disk: &D) -> Result<Option<Self>, ControlFileError> {
        let file = match disk.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.read_whole(&mut bytes)?;
        let control = Control::newest(&bytes).map_err(ControlFileError::Unusable)?;
        write::<D>(&file, &control)?;
        Ok(Some(Self::standing(file, control)))
    }

    fn standing(file: D::File, control: Control) -> Self {
        Self { file, stands: Mutex::new(control), changing: Mutex::default() }
    }

    /// The control block as it stands on disk. Waits for no disk.
    pub fn get(&self) -> Control {
        self.stands.lock().expect(UNBROKEN).clone()
    }

    /// Changes the control block; when it returns the change is durable.
    ///
    /// # Errors
    /// Either the old or the new one stands on disk, and further updates are refused.
    pub fn update(&self, change: impl FnOnce(&mut Control)) -> Result<(), ControlFileError> {
        let mut changing = self.changing.lock().expect(UNBROKEN);
        if changing.poisoned {
            return Err(ControlFileError::Poisoned);
        }
        let mut control = self.get();
        change(&mut control);
        control.sequence += 1;
        if let Err(error) = write::<D>(&self.file, &control) {
            changing.poisoned = true;
            return Err(error.into());
        }
        *self.stands.lock().expect(UNBROKEN) = control;
        Ok(())
    }
}

fn write<D: Disk>(file: &D::File, control: &Control) -> io::Result<()> {
    let place = Control::place(control.sequence);
    file.write_all_at(&mut [IoSlice::new(&control.encode())], place)?;
    file.sync_data()
}
