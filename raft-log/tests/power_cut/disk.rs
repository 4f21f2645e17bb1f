//! An ext4 file system in an image file, and what its disk would hold if the power went now.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::Random;

/// What this needs besides root.
pub const TOOLS: [&str; 5] = ["losetup", "mkfs.ext4", "mount", "umount", "unshare"];

/// Small, because it is copied several times per round; the journal takes a quarter of it.
const IMAGE_BYTES: u64 = 16 << 20;
/// A disk writes and loses whole units of this size.
const UNIT_BYTES: usize = 512;
/// Copies until two in a row are equal. The file system is at rest by then, so the second mostly is.
const COPIES_MAX: usize = 100;

/// A file system mounted from an image file. Dropping it unmounts it, and the loop device goes with the mount.
#[derive(Debug)]
pub struct Disk {
    pub image: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl Disk {
    /// Mounts `image` so that the kernel writes next to nothing without being asked: the journal waits for a
    /// sync, and dirty pages are not due for 30 s (`vm.dirty_expire_centisecs`).
    pub fn mount(image: &Path, at: &Path) -> Result<Disk, String> {
        std::fs::create_dir_all(at).map_err(|error| format!("{}: {error}", at.display()))?;
        let device = attach(image)?;
        let mounted = run(tool("mount")
            .args(["-n", "-t", "ext4", "-o", "commit=600,noatime"])
            .arg(&device)
            .arg(at));
        // A device in use stays until it is unmounted; so nothing is left of it whatever becomes of this process.
        let released = run(tool("losetup").arg("--detach").arg(&device));
        mounted?;
        let disk = Disk {
            image: image.to_path_buf(),
            at: at.to_path_buf(),
        };
        released.map(|_| disk)
    }

    pub fn log(&self) -> PathBuf {
        self.at.join("log")
    }

    /// Makes the journal commit: names that were changed become durable, and bytes that were overwritten do not.
    pub fn commit_journal(&self) {
        let file = File::create(self.at.join("journal-commit")).expect("room for a file");
        file.sync_all().expect("a healthy disk");
    }

    /// Copies the image while it is mounted: what a disk holds when the power goes now. The loop device writes
    /// behind the kernel's back, so the image is at rest only when two copies are equal.
    pub fn copy_as_cut(&self, copy: &Path) {
        let read = || std::fs::read(&self.image).expect("the image is readable");
        let mut last = read();
        for _ in 0..COPIES_MAX {
            let next = read();
            if next == last {
                return std::fs::write(copy, next).expect("room for a copy of the image");
            }
            last = next;
        }
        panic!("{} does not come to rest", self.image.display());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run(tool("umount").arg("-n").arg(&self.at)) {
            eprintln!("{error}; unmounting it lazily");
            let _ = run(tool("umount").args(["-n", "--lazy"]).arg(&self.at));
        }
    }
}

/// Makes an image with an empty file system. Nothing of it is left for the kernel to write later.
pub fn format(image: &Path) -> Result<(), String> {
    File::create(image)
        .and_then(|file| file.set_len(IMAGE_BYTES))
        .map_err(|error| format!("{}: {error}", image.display()))?;
    let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    run(tool("mkfs.ext4")
        .args([
            "-q", "-F", "-b", "4096", "-J", "size=4", "-m", "0", "-E", options,
        ])
        .arg(image))
    .map(|_| ())
}

/// Attaches a free loop device. It passes writes on past the page cache where the file system of the image can do that.
fn attach(image: &Path) -> Result<String, String> {
    let attach = |direct: &[&str]| {
        run(tool("losetup")
            .args(["--find", "--show"])
            .args(direct)
            .arg(image))
    };
    attach(&["--direct-io=on"]).or_else(|_| attach(&[]))
}

/// Of what `live` holds in memory and `cut` does not, writes a random part into `cut`: what the kernel had written
/// out by itself, or the disk had done of a sync that never returned. Returns the units written and passed over.
///
/// Only bytes of files that both have at the same length, so that no change of metadata belongs to it.
pub fn persist_some(live: &Path, cut: &Path, random: &mut Random) -> (u64, u64) {
    let of_cut = files(cut);
    let (mut written, mut passed) = (0, 0);
    for (identity, path) in files(live) {
        let Some(target) = of_cut.get(&identity) else {
            continue;
        };
        // All of a file, none of it or a mix: one file may be on the disk and another not at all.
        let (all, none) = (random.one_in(3), random.one_in(3));
        let new = std::fs::read(&path).expect("the log is readable");
        let old = std::fs::read(target).expect("the log is readable");
        let file = OpenOptions::new()
            .write(true)
            .open(target)
            .expect("the copy is writable");
        let units = new.chunks(UNIT_BYTES).zip(old.chunks(UNIT_BYTES));
        for (number, (new, _)) in units.enumerate().filter(|(_, (new, old))| new != old) {
            if all || (!none && random.one_in(2)) {
                file.write_all_at(new, (number * UNIT_BYTES) as u64)
                    .expect("the copy is writable");
                written += 1;
            } else {
                passed += 1;
            }
        }
    }
    (written, passed)
}

/// What makes a file the same one in both file systems, whatever its name: inode, birth, length.
type Identity = (u64, SystemTime, u64);

fn files(dir: &Path) -> HashMap<Identity, PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return HashMap::new();
    };
    entries
        .map(|entry| {
            let path = entry.expect("the log is readable").path();
            let meta = path.metadata().expect("the log is readable");
            let birth = meta.created().expect("ext4 knows when a file was made");
            ((meta.ino(), birth, meta.len()), path)
        })
        .collect()
}

/// A command of the system. Root's own path may lack where these are.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", path());
    command
}

/// Which of [`TOOLS`] are not there.
pub fn missing_tools() -> Vec<&'static str> {
    let path = path();
    let exists = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    TOOLS.into_iter().filter(|name| !exists(name)).collect()
}

fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Runs a command to its end. Returns what it said, or as an error what it complained of.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        // One line, whatever it was; the tools name themselves in it.
        let said = String::from_utf8_lossy(&output.stderr);
        let words: Vec<&str> = said.split_whitespace().collect();
        return Err(format!("{} ({name}: {})", words.join(" "), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
