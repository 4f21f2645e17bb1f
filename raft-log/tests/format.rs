//! The written specification and the files that earlier versions left are true.
//!
//! With `UPDATE=1` in the environment the example in the specification is written anew, and a missing fixture is made; one
//! that is there is never changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use raft_log::fs::{Fs, SimFs};
use raft_log::record::payload_checksum;
use raft_log::{EntryRef, OsFs, Tail, Wal};
use support::{BINDING, Model, Step, Subject, dir, segment, small};

const SPECIFICATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/log-format.md");
const BEGIN: &str = "<!-- example -->\n```text\n";
const END: &str = "```\n<!-- end of example -->\n";

fn updates() -> bool {
    std::env::var_os("UPDATE").is_some_and(|value| value == "1")
}

/// A field of a block: where it begins, how long it is, what it is.
type Field = (usize, usize, &'static str);

const HEADER: [Field; 14] = [
    (0, 8, "magic RLOGSEGM"),
    (8, 4, "version 1"),
    (12, 4, "checksum of the 12 bytes before"),
    (16, 8, "number 1, as in the name"),
    (24, 8, "nonce"),
    (32, 8, "base: the first record is entry 1"),
    (40, 8, "term of the entry before: there is none"),
    (48, 8, "generation in which it was taken into use"),
    (56, 8, "length 16384"),
    (64, 8, "node 3"),
    (72, 4, "cluster 00c0ffee"),
    (76, 4, "flags: neither recycled nor of repaired entries"),
    (80, 4, "number of the segment before: there is none"),
    (84, 4, "checksum of the 84 bytes before"),
];

const RECORD: [Field; 12] = [
    (0, 4, "synced_to: everything before 0x1000 was synced"),
    (4, 4, "bind"),
    (8, 8, "generation"),
    (16, 4, "length of the payload, 7"),
    (20, 1, "kind 2"),
    (21, 1, "version 1"),
    (22, 2, "zero"),
    (24, 8, "term 3"),
    (32, 8, "index 1"),
    (40, 4, "checksum of the payload"),
    (44, 4, "checksum of the header"),
    (48, 8, "payload \"set x 1\", and one byte of fill"),
];

const FOOTER: [Field; 12] = [
    (0, 8, "magic RLOGSEAL"),
    (8, 4, "version 1"),
    (12, 4, "checksum of the 12 bytes before"),
    (16, 8, "nonce, as in the header"),
    (24, 8, "base, as in the header"),
    (32, 4, "generation, as in the header"),
    (36, 4, "number of the segment before, as in the header"),
    (40, 8, "previous term, as in the header"),
    (48, 4, "lines of the index: none yet"),
    (
        52,
        4,
        "offset behind the last record, once there is an index",
    ),
    (56, 4, "checksum of the lines"),
    (60, 4, "checksum, seeded with cluster and node"),
];

const SLOT: [Field; 18] = [
    (0, 16, "preamble RLOGCTRL"),
    (16, 8, "sequence"),
    (24, 8, "node 3"),
    (32, 4, "cluster 00c0ffee"),
    (36, 4, "flags: created, closed"),
    (40, 8, "watermark: segment 1"),
    (48, 8, "  offset"),
    (56, 8, "  index 2"),
    (64, 8, "  term 3"),
    (72, 16, "synced watermark: segment, offset"),
    (88, 16, "  index, term"),
    (104, 8, "generation"),
    (112, 16, "cut: segment, offset"),
    (128, 16, "floor: index, term"),
    (144, 8, "commit hint 1"),
    (152, 16, "zero"),
    (168, 4, "zero"),
    (172, 4, "checksum of the 172 bytes before"),
];

const VOTE: [Field; 9] = [
    (0, 16, "preamble RLOGVOTE"),
    (16, 8, "sequence"),
    (24, 8, "node 3"),
    (32, 4, "cluster 00c0ffee"),
    (36, 4, "length of the content, 17"),
    (40, 4, "checksum"),
    (44, 4, "zero"),
    (48, 9, "content: term 3, there is a vote"),
    (57, 8, "for node 2"),
];

/// A small log: term 3, a vote for node 2, two entries; closed.
fn example() -> SimFs {
    let fs = SimFs::new(1);
    support::create(&fs, &small());
    let (mut wal, _) = support::open(&fs, &small()).unwrap();
    wal.set_hard_state(3, Some(2)).unwrap();
    for (index, payload) in [(1, &b"set x 1"[..]), (2, b"set y 22")] {
        let entry = EntryRef {
            index,
            term: 3,
            kind: 2,
            payload,
            payload_crc: payload_checksum(BINDING.cluster, payload),
        };
        wal.append(&[entry]).unwrap();
        wal.sync().unwrap();
        wal.note_commit(1);
    }
    wal.close().unwrap();
    fs
}

fn dump(text: &mut String, title: &str, bytes: &[u8], begin: usize, fields: &[Field]) {
    writeln!(text, "{title}").unwrap();
    let mut expected = 0;
    for (offset, length, name) in fields {
        assert_eq!(*offset, expected, "{title}: {name}");
        expected += length;
        let field = &bytes[begin + offset..begin + offset + length];
        let digits: Vec<String> = field.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(
            text,
            "{:04x}  {:<47}  {name}",
            begin + offset,
            digits.join(" ")
        )
        .unwrap();
    }
    text.push('\n');
}

fn example_text() -> String {
    let fs = example();
    let bytes = fs.bytes(&segment(1));
    let mut text = String::new();
    dump(
        &mut text,
        "segment-0000000000000001, header",
        &bytes,
        0,
        &HEADER,
    );
    dump(&mut text, "the first record", &bytes, 4096, &RECORD);
    dump(&mut text, "the footer", &bytes, bytes.len() - 64, &FOOTER);
    let control = fs.bytes(&dir().join("control"));
    dump(&mut text, "control, first slot", &control, 0, &SLOT);
    let vote = fs.bytes(&dir().join("hard-state"));
    dump(&mut text, "hard-state, copy A", &vote, 0, &VOTE);
    text.pop();
    text
}

#[test]
fn example_in_the_specification_is_what_the_code_writes() {
    let document = std::fs::read_to_string(SPECIFICATION).unwrap();
    let begin = document.find(BEGIN).expect("the example begins") + BEGIN.len();
    let end = begin + document[begin..].find(END).expect("the example ends");
    let text = example_text();
    if document[begin..end] != text {
        if updates() {
            let new = [&document[..begin], &text, &document[end..]].concat();
            return std::fs::write(SPECIFICATION, new).unwrap();
        }
        panic!("the example in docs/log-format.md is not what is written: UPDATE=1 writes it anew");
    }
}

fn fixture(version: u32) -> PathBuf {
    let name = format!("testdata/v{version}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Two segments, the first with its index, a cut, a repaired entry, a vote, and the purged beginning.
fn fixture_log() -> (SimFs, Model) {
    let mut subject = Subject::new(SimFs::new(2), small());
    subject.run(&[
        Step::HardState(2, Some(2)),
        Step::Append(vec![(1, 200); 20]),
        Step::Append(vec![(2, 200); 12]),
        Step::Append(vec![(2, 200); 6]),
        Step::Truncate(37),
        Step::Append(vec![(3, 70); 3]),
        Step::HardState(3, None),
        Step::Purge(2),
        Step::Prepare,
    ]);
    let mut wal = subject.wal.take().unwrap();
    let (term, payload) = &subject.acknowledged.entries[&34];
    let payload_crc = payload_checksum(BINDING.cluster, payload);
    wal.repair(&[EntryRef {
        index: 34,
        term: *term,
        kind: 2,
        payload,
        payload_crc,
    }])
    .unwrap();
    wal.close().unwrap();
    (subject.fs, subject.acknowledged)
}

fn make_fixture(dir_of_fixture: &Path) {
    std::fs::create_dir_all(dir_of_fixture).unwrap();
    let (fs, _) = fixture_log();
    for name in fs.list(&dir()).unwrap() {
        let is_needed = name != "lock" && !name.starts_with("spare-");
        if is_needed {
            let bytes = fs.bytes(&dir().join(&name));
            std::fs::write(dir_of_fixture.join(&name), bytes).unwrap();
        }
    }
}

/// What a released version wrote can be read for ever.
#[test]
fn log_of_version_1_is_readable() {
    let fixture = fixture(1);
    if updates() && !fixture.exists() {
        make_fixture(&fixture);
    }
    let (_, expected) = fixture_log();
    let temporary = tempfile::tempdir().unwrap();
    let copy = temporary.path().join("log");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&fixture).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let (wal, opened) = Wal::open(&OsFs, &copy, BINDING, small()).unwrap();
    assert_eq!(opened.tail, Tail::Clean);
    assert_eq!(
        (&opened.faulty[..], &opened.reports[..]),
        (&[][..], &[][..])
    );
    assert!(Model::of(&wal) == expected);
}
