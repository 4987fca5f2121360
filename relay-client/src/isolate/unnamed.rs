//! A directory in memory that has no place among the mounts: for secrets of the caller, whatever a command of this user
//! renames.
//!
//! A process of its own mounts it in namespaces that end with it, and hands it over as a descriptor. It is gone with that.
//! What leads to it is that descriptor, and what /proc has of it (`/proc/PID/fd/N`): this is closed to the user's other processes where
//! the caller has kept them out ([`keep_others_out`](super::keep_others_out)), as this process does before it mounts anything. Root finds
//! it.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::Stdio,
};

use super::{
    control,
    ended::Ended,
    stage,
    supervise::{before_the_command, itself},
};

/// Such a directory.
#[derive(Debug)]
pub struct Unnamed {
    descriptor: OwnedFd,
}

/// There is none.
#[derive(Debug)]
pub enum UnnamedError {
    /// This system does not let it be made. Why, and what to do, has been said on standard error.
    Forbidden(Ended),
    /// Something else.
    Failed(io::Error),
}

impl From<io::Error> for UnnamedError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Unnamed {
    /// Make one. It needs what confining a command needs.
    ///
    /// # Errors
    /// See [`UnnamedError`].
    pub async fn new() -> Result<Self, UnnamedError> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = itself(stage::keep_arguments());
        command.env_clear();
        command.kill_on_drop(true);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut child = command.spawn()?;
        // With it goes our copy of the other end.
        drop(command);
        let status = child.wait().await?;
        if !status.success() {
            return Err(UnnamedError::Forbidden(before_the_command(status)));
        }
        // It was sent before the end.
        let descriptor = control::take_one(&ours)?;
        Ok(Self { descriptor })
    }

    /// What leads there from within this process.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()).into()
    }
}
