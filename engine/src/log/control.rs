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
    state: Mutex<State>,
}

struct State {
    control: Control,
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
        Ok(Self { file, state: Mutex::new(State { control, poisoned: false }) })
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
        Ok(Some(Self { file, state: Mutex::new(State { control, poisoned: false }) }))
    }

    /// The control block as it stands on disk.
    pub fn get(&self) -> Control {
        self.state.lock().expect(UNBROKEN).control.clone()
    }

    /// Changes the control block; when it returns the change is durable.
    ///
    /// # Errors
    /// Either the old or the new one stands on disk, and further updates are refused.
    pub fn update(&self, change: impl FnOnce(&mut Control)) -> Result<(), ControlFileError> {
        let mut state = self.state.lock().expect(UNBROKEN);
        if state.poisoned {
            return Err(ControlFileError::Poisoned);
        }
        let mut control = state.control.clone();
        change(&mut control);
        control.sequence = state.control.sequence + 1;
        if let Err(error) = write::<D>(&self.file, &control) {
            state.poisoned = true;
            return Err(error.into());
        }
        state.control = control;
        Ok(())
    }
}

fn write<D: Disk>(file: &D::File, control: &Control) -> io::Result<()> {
    let place = Control::place(control.sequence);
    file.write_all_at(&mut [IoSlice::new(&control.encode())], place)?;
    file.sync_data()
}
