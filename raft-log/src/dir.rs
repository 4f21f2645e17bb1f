//! Names in a log directory, and how a file gets its name so that a crash leaves all of it or nothing.

use std::path::{Path, PathBuf};

use crate::error::{IoContext, IoFault};
use crate::format::NUMBER_MAX;
use crate::fs::{File, Fs};

pub(crate) const CONTROL: &str = "control";
pub(crate) const HARD_STATE: &str = "hard-state";
pub(crate) const LOCK: &str = "lock";

const SEGMENT_PREFIX: &str = "segment-";
const SPARE_PREFIX: &str = "spare-";
const REPAIR_PREFIX: &str = "repair-";
const TEMPORARY_SUFFIX: &str = ".tmp";
const NUMBER_DIGITS: usize = 16;

/// What a name in the directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Part of the log.
    Segment(u64),
    /// Allocated and synced, not part of the log.
    Spare(u64),
    /// Copies of entries that were damaged in their segments.
    Repair(u64),
    /// An unfinished file of an interrupted start or preparation.
    Temporary,
    /// Control file, hard state, lock, or nothing of ours.
    Other,
}

pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SEGMENT_PREFIX}{number:016x}"))
}

pub(crate) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SPARE_PREFIX}{number:016x}"))
}

pub(crate) fn repair_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{REPAIR_PREFIX}{number:016x}"))
}

/// The name under which a file is written before it gets its own.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(TEMPORARY_SUFFIX);
    path.with_file_name(name)
}

pub(crate) fn parse_name(name: &str) -> Name {
    if let Some(number) = numbered(name, SEGMENT_PREFIX) {
        return Name::Segment(number);
    }
    if let Some(number) = numbered(name, SPARE_PREFIX) {
        return Name::Spare(number);
    }
    if let Some(number) = numbered(name, REPAIR_PREFIX) {
        return Name::Repair(number);
    }
    if let Some(stem) = name.strip_suffix(TEMPORARY_SUFFIX) {
        let ours = stem == CONTROL || stem == HARD_STATE || numbered(stem, SPARE_PREFIX).is_some();
        return if ours { Name::Temporary } else { Name::Other };
    }
    Name::Other
}

fn numbered(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    // Only our own spelling: a copy like `segment-1` or in capitals was made by somebody else.
    let spelled = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits.len() != NUMBER_DIGITS || !spelled {
        return None;
    }
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|number| (1..=NUMBER_MAX).contains(number))
}

/// Creates `path` with `bytes` in it, durable on return; a crash leaves the complete file or none.
pub(crate) fn write_file_atomically<F: Fs>(
    fs: &F,
    path: &Path,
    bytes: &[u8],
) -> Result<F::File, IoFault> {
    let temporary = temporary_path(path);
    if fs.exists(&temporary).during("look for", &temporary)? {
        fs.remove(&temporary).during("remove", &temporary)?;
    }
    let file = fs.create_new(&temporary).during("create", &temporary)?;
    file.write_at(bytes, 0).during("write", &temporary)?;
    file.sync_all().during("sync", &temporary)?;
    fs.rename(&temporary, path).during("rename", &temporary)?;
    let dir = parent(path);
    fs.sync_dir(dir).during("sync", dir)?;
    Ok(file)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_written_and_foreign_ones_ignored() {
        let dir = Path::new("d");
        for number in [1, 0xabc, NUMBER_MAX] {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(
                parse_name(&name(segment_path(dir, number))),
                Name::Segment(number)
            );
            assert_eq!(
                parse_name(&name(spare_path(dir, number))),
                Name::Spare(number)
            );
            assert_eq!(
                parse_name(&name(temporary_path(&spare_path(dir, number)))),
                Name::Temporary
            );
        }
        for name in [
            "segment-1",
            "segment-000000000000000A",
            "segment-0000000000000000",
            "segment-ffffffffffffffff",
            "x.tmp",
            "segment-",
        ] {
            assert_eq!(parse_name(name), Name::Other, "{name}");
        }
        assert_eq!(parse_name("control.tmp"), Name::Temporary);
    }
}
