//! Bytes on the disk that are not what was written.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kvd_sim::process::{Cluster, Load, RecordPlace, dump, find_records, long, seeded_rng};
use rand::RngExt as _;

/// A stopped cluster with a log on every node, and what its clients were told.
fn stopped_after_load() -> (Cluster, kvd_sim::process::Acknowledged) {
    let mut cluster = Cluster::start();
    let load = Load::writing(&cluster, 4, "damage");
    load.wait_for_more(200);
    let told = load.finish();
    cluster.wait_converged();
    for node in &mut cluster.nodes {
        node.kill();
    }
    (cluster, told)
}

fn flip(file: &Path, offset: u64, bit: u8) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .expect("the node is stopped");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)
        .expect("within the file");
    file.write_all_at(&[byte[0] ^ 1 << bit], offset)
        .expect("within the file");
}

/// Must show 4: a bit flipped anywhere in a record of the synced log is refused at start with file, offset and index. Turned
/// back, the node starts and has everything.
#[test]
fn a_flipped_bit_in_the_synced_log_is_refused() {
    let places = if long() { 100 } else { 10 };
    let mut rng = seeded_rng();
    let (mut cluster, told) = stopped_after_load();
    let records = find_records(&cluster.nodes[0].log_dir(), cluster.id.0);
    assert!(records.len() > 200, "{} records found", records.len());
    for _ in 0..places {
        let record = &records[rng.random_range(0..records.len())];
        let (offset, bit) = (
            rng.random_range(record.start..record.end),
            rng.random_range(0..8),
        );
        flip(&record.file, offset, bit);
        let (code, line) = cluster.nodes[0].start_refused(&[]);
        assert_eq!(code, 65, "bit {bit} at {offset} of {record:?}: {line}");
        assert_names(&line, record);
        flip(&record.file, offset, bit);
    }
    cluster.start_all();
    cluster.leader();
    told.check(&dump(&cluster));
    cluster.wait_converged();
}

#[track_caller]
fn assert_names(line: &str, record: &RecordPlace) {
    assert!(line.starts_with("exit 65: "), "{line}");
    assert!(
        line.contains(&format!("file={}", record.file.display())),
        "{record:?}: {line}"
    );
    assert!(
        line.contains(&format!("index={}", record.index)),
        "{record:?}: {line}"
    );
    let offset = line
        .split("offset=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let offset = offset.unwrap_or_else(|| panic!("no offset: {line}"));
    assert!(
        (record.start..record.end).contains(&offset),
        "{record:?}: {line}"
    );
}

/// Must show 4, the other way: bytes behind the last synced record, whole garbage or the first half of a record, are a torn
/// write, and the node starts without them.
#[test]
fn a_torn_tail_that_was_never_synced_is_accepted() {
    let mut rng = seeded_rng();
    let (mut cluster, told) = stopped_after_load();
    for node in 0..3 {
        let records = find_records(&cluster.nodes[node].log_dir(), cluster.id.0);
        let last = records.last().expect("there is a log");
        let end = last.end.next_multiple_of(8);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&last.file)
            .expect("the node is stopped");
        let torn = if node == 1 {
            let mut half =
                vec![0; usize::try_from((last.end - last.start) / 2).expect("a record is small")];
            file.read_exact_at(&mut half, last.start)
                .expect("within the file");
            half
        } else {
            (0..rng.random_range(1..300))
                .map(|_| rng.random())
                .collect()
        };
        file.write_all_at(&torn, end).expect("a segment has room");
    }
    cluster.start_all();
    cluster.leader();
    told.check(&dump(&cluster));
    cluster.kvctl(&["set", "damage-after", "sound"]).ok();
    cluster.wait_converged();
    assert_eq!(cluster.local_export(0), cluster.local_export(1));
    assert_eq!(cluster.local_export(0), cluster.local_export(2));
}
