//! A file has a nonce of its own each time it becomes a segment, so that no record of another use of it checks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use raft_log::fs::{File, Fs, OsFs, SimFs};
use raft_log::record::payload_checksum;
use raft_log::{EntryRef, Options, Wal};
use support::{BINDING, small};

/// Bytes of a segment's header that are in use.
const HEADER_BYTES: usize = 88;
const FLAG_RECYCLED: u8 = 1;
const FLAG_REPAIRS: u8 = 2;

/// Headers of all segments that logs have had, as they come and go.
#[derive(Default)]
struct Seen {
    logs: usize,
    /// With the number of the log.
    headers: BTreeSet<(usize, Vec<u8>)>,
}

impl Seen {
    fn look<F: Fs>(&mut self, fs: &F, dir: &Path) {
        let names = fs.list(dir).unwrap();
        let is_segment =
            |name: &&String| name.starts_with("segment-") || name.starts_with("repair-");
        for name in names.iter().filter(is_segment) {
            let mut header = vec![0; HEADER_BYTES];
            let file = fs.open(&dir.join(name)).unwrap();
            file.read_exact_at(&mut header, 0).unwrap();
            self.headers.insert((self.logs, header));
        }
    }

    fn flagged(&self, flag: u8) -> usize {
        let flags = self.headers.iter().map(|(_, header)| header[76]);
        flags.filter(|flags| flags & flag != 0).count()
    }

    fn nonces(&self) -> BTreeSet<&[u8]> {
        let headers = self.headers.iter();
        headers.map(|(_, header)| &header[24..32]).collect()
    }
}

fn options() -> Options {
    Options {
        spare_segments: 2,
        ..small()
    }
}

fn open<F: Fs>(fs: &F, dir: &Path) -> Wal<F> {
    Wal::open(fs, dir, BINDING, options()).unwrap().0
}

/// Appends as many entries as two segments hold.
fn fill<F: Fs>(wal: &mut Wal<F>) {
    for index in wal.last_index() + 1..=wal.last_index() + 10 {
        let payload = support::payload(index, 1, 0, 1500);
        support::append(wal, &[(index, 1, payload)]).unwrap();
        wal.sync().unwrap();
    }
}

/// Damages the payload of the first entry of a new log, and puts the entry back.
fn repair_first<F: Fs>(fs: &F, dir: &Path, wal: &mut Wal<F>) {
    let file = fs.open(&dir.join("segment-0000000000000001")).unwrap();
    file.write_at(b"rot", 4096 + 100).unwrap();
    let payload = support::payload(1, 1, 0, 1500);
    wal.repair(&[EntryRef {
        index: 1,
        term: 1,
        kind: 2,
        payload: &payload,
        payload_crc: payload_checksum(BINDING.cluster, &payload),
    }])
    .unwrap();
}

/// A log whose segments are purged, used again, emptied, and numbered from 1 again.
fn live<F: Fs>(fs: &F, dir: &Path, seen: &mut Seen) {
    seen.logs += 1;
    Wal::create(fs, dir, BINDING, &options()).unwrap();
    let mut wal = open(fs, dir);
    fill(&mut wal);
    repair_first(fs, dir, &mut wal);
    seen.look(fs, dir);
    for _ in 0..3 {
        wal.purge_prefix(wal.last_index(), 1).unwrap();
        fill(&mut wal);
        seen.look(fs, dir);
    }
    wal.reset(wal.last_index(), 1).unwrap();
    wal.close().unwrap();
    let mut wal = open(fs, dir);
    fill(&mut wal);
    seen.look(fs, dir);
}

fn assert_each_has_its_own(seen: &Seen) {
    let recycled = seen.flagged(FLAG_RECYCLED);
    assert!(recycled > 3, "{recycled} files were segments before");
    let repairs = seen.flagged(FLAG_REPAIRS);
    assert_eq!(repairs, 2, "a file of repaired entries in each log");
    let (nonces, segments) = (seen.nonces().len(), seen.headers.len());
    assert_eq!(nonces, segments, "nonces of as many segments");
}

/// Two logs that do the same have no nonce in common either: a file of one is none of the other's.
#[test]
fn nonce_is_drawn_anew_for_each_segment_on_a_real_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let mut seen = Seen::default();
    for log in ["one", "other"] {
        live(&OsFs, &temporary.path().join(log), &mut seen);
    }
    assert_each_has_its_own(&seen);
}

#[test]
fn nonce_is_drawn_anew_for_each_segment_on_the_simulated_disk() {
    let mut seen = Seen::default();
    for seed in [41, 42] {
        live(&SimFs::new(seed), &PathBuf::from("/data/log"), &mut seen);
    }
    assert_each_has_its_own(&seen);
}
