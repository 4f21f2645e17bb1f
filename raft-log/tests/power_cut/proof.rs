//! Shows that a cut loses what was not synced, all of it and only it. Otherwise the rounds show nothing.
//!
//! It would fail too if somebody told the whole system to `sync` in the same tenth of a second.

use std::fs::{File, OpenOptions, read, rename};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::Disk;

const OLD: [u8; 8192] = [b'o'; 8192];
const NEW: [u8; 8192] = [b'n'; 8192];

/// Names in the file system, and what is done to them.
const SYNCED: &str = "synced";
const RENAMED: &str = "renamed";
const OVERWRITTEN: &str = "overwritten";
const UNSYNCED: &str = "unsynced";

/// What a copy holds by one of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Missing,
    Empty,
    Old,
    New,
    Mixed,
}

/// What a copy holds.
#[derive(Debug)]
struct Found {
    synced: Held,
    renamed: Held,
    overwritten: Held,
    unsynced: Held,
}

pub fn prove(disk: &Disk, work: &Path) {
    write_some(&disk.at).expect("a healthy disk");

    let copy = look(disk, work, "without a sync");
    assert_eq!(copy.synced, Held::Old, "synced, so it is there");
    assert_eq!(copy.renamed, Held::Missing, "the name was not synced");
    assert_eq!(copy.overwritten, Held::Old, "the bytes were not synced");
    let lost = matches!(copy.unsynced, Held::Missing | Held::Empty);
    assert!(lost, "nothing of it was synced");

    disk.commit_journal();
    let copy = look(disk, work, "with the journal committed");
    assert_eq!(copy.synced, Held::Missing, "a commit stores names");
    assert_eq!(copy.renamed, Held::Old, "a commit stores names");
    assert_eq!(copy.overwritten, Held::Old, "a commit stores no bytes");

    let file = OpenOptions::new()
        .write(true)
        .open(disk.at.join(OVERWRITTEN));
    file.and_then(|file| file.sync_data())
        .expect("a healthy disk");
    let copy = look(disk, work, "with the new bytes synced");
    assert_eq!(copy.overwritten, Held::New, "synced now");
}

fn write_some(dir: &Path) -> io::Result<()> {
    for name in [SYNCED, OVERWRITTEN] {
        let file = File::create_new(dir.join(name))?;
        file.write_all_at(&OLD, 0)?;
        file.sync_all()?;
    }
    File::open(dir)?.sync_all()?;
    File::create_new(dir.join(UNSYNCED))?.write_all_at(&NEW, 0)?;
    OpenOptions::new()
        .write(true)
        .open(dir.join(OVERWRITTEN))?
        .write_all_at(&NEW, 0)?;
    rename(dir.join(SYNCED), dir.join(RENAMED))
}

fn look(disk: &Disk, work: &Path, when: &str) -> Found {
    let image = work.join("proof-as-cut.img");
    disk.copy_as_cut(&image);
    let cut = Disk::mount(&image, &work.join("proof-as-cut")).expect("mounting worked before");
    let held = |name: &str| match read(cut.at.join(name)).as_deref() {
        Err(_) => Held::Missing,
        Ok([]) => Held::Empty,
        Ok(bytes) if bytes == OLD => Held::Old,
        Ok(bytes) if bytes == NEW => Held::New,
        Ok(_) => Held::Mixed,
    };
    let copy = Found {
        synced: held(SYNCED),
        renamed: held(RENAMED),
        overwritten: held(OVERWRITTEN),
        unsynced: held(UNSYNCED),
    };
    println!("proof, a copy {when}: {copy:?}");
    copy
}
