//! A disk that can be full.

use super::{Cluster, folder};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A small disk in memory with a database on it. It is gone when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl Cluster {
    /// Makes an empty database on a disk of its own with this many megabytes, and gives its address. The server's log of
    /// transactions lies elsewhere. Nothing, if this process may not mount a disk.
    ///
    /// # Panics
    /// If the server does not make it.
    #[must_use]
    pub fn small_database(&self, megabytes: u32) -> Option<(String, SmallDisk)> {
        let disk = SmallDisk::mount(megabytes)?;
        let name = disk.folder.file_name()?.to_str()?.replace('-', "_");
        self.run(&format!(
            "CREATE TABLESPACE {name} LOCATION '{}'",
            disk.folder.join("data").display()
        ));
        self.run(&format!("CREATE DATABASE {name} TABLESPACE {name}"));
        Some((self.url_of(&name), disk))
    }
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = folder();
        fs::create_dir(&folder).ok()?;
        let size = format!("size={megabytes}m,mode=0755");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).status();
        if !mounted.is_ok_and(|status| status.success()) {
            let _ = fs::remove_dir(&folder);
            return None;
        }
        let disk = Self { folder };
        let data = disk.folder.join("data");
        fs::create_dir(&data).ok()?;
        let owned = Command::new("chown").arg("postgres").arg(data).status();
        owned.is_ok_and(|status| status.success()).then_some(disk)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let Ok(mut file) = File::create(self.folder.join("rest")) else {
            return;
        };
        for size in [1 << 20, 1 << 12] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn empty(&self) {
        let _ = fs::remove_file(self.folder.join("rest"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        let _ = fs::remove_dir(&self.folder);
    }
}
