//! The file that keeps a node's membership over a restart.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::limits::MAX_CONTROL_BYTES;

/// Where the membership is kept: `<data_dir>/default_peer_service/membership`.
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self {
            path: data_dir.join("default_peer_service").join("membership"),
        }
    }

    /// What was saved last; `None` if nothing was.
    pub(crate) fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(2 * MAX_CONTROL_BYTES as u64)
            .read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Replaces what is saved. After a crash the file is the old or the new one, never a mixture.
    pub(crate) fn save(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }

    /// Keeps an unreadable file out of the way, and tells where.
    pub(crate) fn set_aside(&self) -> PathBuf {
        let kept = self.path.with_extension("unreadable");
        // If even that fails, the next save overwrites the file.
        let _ = fs::rename(&self.path, &kept);
        kept
    }
}
