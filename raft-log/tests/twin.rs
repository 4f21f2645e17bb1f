//! Files that are stored twice, as others use them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use raft_log::fs::{Fs, SimFs, UnitFate};
use raft_log::{Binding, OpenError, OsFs, Report, TwinError, TwinFile};

const MAGIC: [u8; 8] = *b"TESTTWIN";
const BINDING: Binding = Binding {
    cluster: 9,
    node: 1,
};

fn path() -> PathBuf {
    PathBuf::from("/data/identity")
}

fn disk() -> SimFs {
    let fs = SimFs::new(1);
    fs.create_dir_all(Path::new("/data")).unwrap();
    fs
}

type Opened = (TwinFile<SimFs>, Vec<u8>, Option<Report>);

fn open(fs: &SimFs) -> Result<Opened, OpenError> {
    TwinFile::open(fs, &path(), MAGIC, BINDING)
}

#[test]
fn content_of_any_length_comes_back() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = temporary.path().join("identity");
    let mut twin = TwinFile::create(&OsFs, &path, MAGIC, BINDING, b"first").unwrap();
    for bytes in [0, 1, 464, 465, 4000, 8144] {
        let content = vec![7; bytes];
        twin.write(&content).unwrap();
        let (again, found, report) = TwinFile::open(&OsFs, &path, MAGIC, BINDING).unwrap();
        assert_eq!((found, report), (content, None));
        twin = again;
    }
    assert!(matches!(
        twin.write(&[0; 8145]),
        Err(TwinError::TooLarge { bytes: 8145 })
    ));
    assert!(matches!(
        TwinFile::create(&OsFs, &path, MAGIC, BINDING, b""),
        Err(TwinError::Exists { .. })
    ));
    assert_eq!(TwinFile::binding_of(&OsFs, &path, MAGIC).unwrap(), BINDING);
    let other = Binding { node: 2, ..BINDING };
    assert!(matches!(
        TwinFile::open(&OsFs, &path, MAGIC, other),
        Err(OpenError::WrongBinding { .. })
    ));
}

#[test]
fn missing_file_is_said() {
    assert!(matches!(open(&disk()), Err(OpenError::Missing { .. })));
}

/// Case 21: a power cut at each call of creating and writing: the file is absent, or holds the last
/// content that was answered or the one under way.
#[test]
fn power_cut_anywhere_keeps_what_was_answered() {
    for stop in 1..40 {
        for mix in 0..32u64 {
            let fs = disk();
            fs.stop_at_call(fs.calls() + stop);
            let mut answered = None;
            if let Ok(mut twin) = TwinFile::create(&fs, &path(), MAGIC, BINDING, &[0; 900]) {
                answered = Some(0u8);
                for content in 1..4u8 {
                    if twin.write(&[content; 900]).is_err() {
                        assert!(matches!(
                            twin.write(&[9; 900]),
                            Err(TwinError::Poisoned { .. })
                        ));
                        break;
                    }
                    answered = Some(content);
                }
            }
            let mut bits = mix;
            let mut bit = || {
                bits = bits.rotate_right(1);
                bits >> 63 == 1
            };
            let keep = bit();
            fs.power_cut_with(&mut |_| keep, &mut |_| {
                if bit() {
                    UnitFate::New
                } else {
                    UnitFate::Garbage
                }
            });
            match (open(&fs), answered) {
                (Ok((_, found, _)), answered) => {
                    let next = answered.map_or(0, |answered| answered + 1);
                    let allowed = [answered.unwrap_or(0), next];
                    assert!(
                        allowed.contains(&found[0]),
                        "stop {stop}, mix {mix}: {:?} for {answered:?}",
                        found[0]
                    );
                    assert!(
                        found.iter().all(|byte| *byte == found[0]),
                        "a mixed content"
                    );
                }
                (Err(OpenError::Missing { .. }), None) => {
                    TwinFile::create(&fs, &path(), MAGIC, BINDING, b"again").unwrap();
                }
                (Err(error), answered) => {
                    panic!("stop {stop}, mix {mix}, answered {answered:?}: {error}")
                }
            }
        }
    }
}

/// What was read may have been in memory only, after a sync that failed: it is durable once opened.
#[test]
fn opened_content_is_durable_although_its_sync_had_failed() {
    for failing in [1, 2] {
        let fs = disk();
        let mut twin = TwinFile::create(&fs, &path(), MAGIC, BINDING, b"old").unwrap();
        fs.fail_sync(fs.syncs() + failing, 5);
        assert!(matches!(twin.write(b"new"), Err(TwinError::Io(_))));
        assert!(matches!(
            twin.write(b"newer"),
            Err(TwinError::Poisoned { .. })
        ));
        fs.crash_process();
        let (_, first, _) = open(&fs).unwrap();
        fs.power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
        let (_, second, report) = open(&fs).unwrap();
        assert_eq!((second, report), (first, None), "sync {failing}");
    }
}

#[test]
fn unreadable_copy_is_replaced_by_the_other() {
    let fs = disk();
    TwinFile::create(&fs, &path(), MAGIC, BINDING, b"content").unwrap();
    fs.set_unreadable(&path(), 0);
    let (_, found, report) = open(&fs).unwrap();
    assert_eq!(found, b"content");
    assert!(matches!(report, Some(Report::CopyRewritten(_))));
}

/// A crash between the two copies: the newer one counts, and both hold it afterwards.
#[test]
fn newer_copy_counts_when_the_crash_came_between_the_two() {
    for newer in [0, 8192u64] {
        let fs = disk();
        let mut twin = TwinFile::create(&fs, &path(), MAGIC, BINDING, b"old").unwrap();
        let before = fs.bytes(&path());
        twin.write(b"new").unwrap();
        let mut mixed = fs.bytes(&path());
        let older = 8192 - newer as usize;
        mixed[older..older + 100].copy_from_slice(&before[older..older + 100]);
        fs.set_bytes(&path(), &mixed);
        let (_, found, report) = open(&fs).unwrap();
        assert_eq!((&found[..], report), (&b"new"[..], None));
        fs.flip_bit(&path(), (newer + 20) * 8);
        let (_, found, _) = open(&fs).unwrap();
        assert_eq!(found, b"new");
    }
}

/// Two copies of one sequence that differ cannot come from one writer: neither is believed.
#[test]
fn copies_of_one_sequence_that_differ_are_refused() {
    let (one, other) = (disk(), disk());
    TwinFile::create(&one, &path(), MAGIC, BINDING, b"one").unwrap();
    TwinFile::create(&other, &path(), MAGIC, BINDING, b"two").unwrap();
    let mixed = [&one.bytes(&path())[..8192], &other.bytes(&path())[8192..]].concat();
    one.set_bytes(&path(), &mixed);
    assert!(matches!(open(&one), Err(OpenError::Corrupt(_))));
}
