//! How many clusters run at once on this machine, over all test processes.
//!
//! A slot is a locked file. Its number gives a cluster its addresses and names; the kernel lets go of the lock
//! whatever happens to the test, and the file tells the next holder what a killed test may have left.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// Clusters at once; `XEBEC_TEST_CLUSTERS` changes it.
const CLUSTERS: u8 = 2;
const DIRECTORY: &str = "/run/xebec-testkit";

/// One cluster's right to exist.
#[derive(Debug)]
pub struct Slot {
    /// Which one.
    pub number: u8,
    file: File,
}

impl Slot {
    /// Waits for a free slot.
    ///
    /// # Errors
    /// If the lock files cannot be made.
    pub async fn take() -> Result<Self> {
        let wanted = std::env::var("XEBEC_TEST_CLUSTERS").ok().and_then(|text| text.parse().ok());
        let clusters: u8 = wanted.unwrap_or(CLUSTERS).clamp(1, 200);
        std::fs::create_dir_all(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
        loop {
            for number in 0..clusters {
                let file = open(&Path::new(DIRECTORY).join(format!("slot-{number}")))?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(Self { number, file });
                }
            }
            // File locks have no event to wait for on several files at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The directory of a cluster that the last holder did not remove.
    pub fn stale(&mut self) -> Option<PathBuf> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        self.file.read_to_string(&mut text).ok()?;
        Some(PathBuf::from(text.trim())).filter(|path| path.is_absolute())
    }

    /// Notes the directory of the cluster that is about to be made, or that there is none any more.
    ///
    /// # Errors
    /// If the slot's file cannot be written.
    pub fn note(&mut self, directory: Option<&Path>) -> Result<()> {
        let text = directory.map(|path| path.display().to_string()).unwrap_or_default();
        self.file.set_len(0).and_then(|()| self.file.rewind()).context("note the slot's holder")?;
        self.file.write_all(text.as_bytes()).context("note the slot's holder")
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    file.with_context(|| format!("open {}", path.display()))
}
