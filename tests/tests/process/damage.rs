//! Bytes on the disk that are not what was written.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kvd_sim::process::{
    Acknowledged, Cluster, Load, RecordPlace, dump, eventually, find_records, long, seeded_rng,
};
use rand::RngExt as _;

/// A cluster with a log on every node, and what its clients were told.
fn loaded(nodes: usize) -> (Cluster, Acknowledged) {
    let cluster = Cluster::builder().nodes(nodes).build();
    let load = Load::writing(&cluster, 4, "damage");
    load.wait_for_more(200);
    let told = load.finish();
    cluster.wait_converged();
    (cluster, told)
}

/// The same, stopped.
fn stopped_after_load(nodes: usize) -> (Cluster, Acknowledged) {
    let (mut cluster, told) = loaded(nodes);
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

/// Flips one bit somewhere in this record.
fn damage(record: &RecordPlace, rng: &mut impl rand::Rng) {
    let offset = rng.random_range(record.start..record.end);
    flip(&record.file, offset, rng.random_range(0..8));
}

/// The records of a stopped node, without the newest ones: those may have been written but never acknowledged.
fn acknowledged_records(cluster: &Cluster, node: usize) -> Vec<RecordPlace> {
    let mut records = find_records(&cluster.nodes[node].log_dir(), cluster.id.0);
    assert!(records.len() > 200, "{} records found", records.len());
    records.truncate(records.len() - 20);
    records
}

fn wait_repaired(cluster: &Cluster, node: usize) {
    let name = &cluster.nodes[node].name;
    eventually(&format!("{name} to have its log back"), || {
        cluster
            .view(node)
            .is_some_and(|view| view.storage == "ok" && view.damaged == 0)
    });
}

/// Must show 4: a bit flipped anywhere in a record of the synced log of a node without peers is refused at start with file,
/// offset and index. Turned back, the node starts and has everything.
#[test]
fn a_flipped_bit_in_the_synced_log_of_a_single_node_is_refused() {
    let places = if long() { 100 } else { 10 };
    let mut rng = seeded_rng();
    let (mut cluster, told) = stopped_after_load(1);
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
    let (mut cluster, told) = stopped_after_load(3);
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

/// Case 53: two of three lost entries, each other ones. They get them back from each other and from the third, and nothing that
/// was acknowledged is missing.
#[test]
fn damage_on_two_nodes_in_different_entries_is_repaired() {
    let per_node = if long() { 20 } else { 5 };
    let mut rng = seeded_rng();
    let (mut cluster, told) = stopped_after_load(3);
    let first = acknowledged_records(&cluster, 0);
    let second = acknowledged_records(&cluster, 1);
    for _ in 0..per_node {
        // Even indexes here, odd ones there.
        let even = first[rng.random_range(0..first.len())].index & !1;
        let odd = second[rng.random_range(0..second.len())].index | 1;
        let of = |records: &[RecordPlace], index| {
            records.iter().find(|record| record.index == index).cloned()
        };
        of(&first, even).inspect(|record| damage(record, &mut rng));
        of(&second, odd).inspect(|record| damage(record, &mut rng));
    }
    cluster.start_all();
    cluster.leader();
    for node in 0..2 {
        wait_repaired(&cluster, node);
        let log = cluster.nodes[node].log();
        assert!(log.contains("damage found in the log"), "{log}");
    }
    told.check(&dump(&cluster));
    cluster.kvctl(&["set", "damage-after", "repaired"]).ok();
    cluster.wait_converged();
    for node in &mut cluster.nodes {
        node.kill();
    }
    // The copies are on the disks.
    cluster.start_all();
    cluster.leader();
    told.check(&dump(&cluster));
    for node in 0..3 {
        wait_repaired(&cluster, node);
    }
}

/// Case 53: the only other holder is down. The cluster waits, and says for whom.
#[test]
fn nodes_that_lost_the_same_entry_wait_for_its_only_holder() {
    let mut rng = seeded_rng();
    let (mut cluster, told) = stopped_after_load(3);
    let records = acknowledged_records(&cluster, 0);
    let index = records[rng.random_range(0..records.len())].index;
    for node in 0..2 {
        let records = acknowledged_records(&cluster, node);
        let record = records.iter().find(|record| record.index == index);
        damage(record.expect("both hold it"), &mut rng);
        cluster.nodes[node].start();
        cluster.nodes[node].wait_listening();
    }
    for node in 0..2 {
        eventually("a node to say that it waits for n3", || {
            cluster.view(node).is_some_and(|view| {
                view.storage == "repairing"
                    && view.damaged == 1
                    && view.repair_waits_for.contains(&"n3".to_owned())
            })
        });
    }
    let shown = cluster.kvctl(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned() + &shown.stderr;
    assert!(shown.contains("repairing"), "{shown}");
    assert_eq!(cluster.agreed_leader(), None, "neither votes");
    cluster.nodes[2].start();
    cluster.leader();
    for node in 0..2 {
        wait_repaired(&cluster, node);
    }
    told.check(&dump(&cluster));
    cluster.wait_converged();
}

/// Rot is found while the node runs, before anybody needs the entry.
#[test]
fn rot_under_a_running_node_is_found_and_repaired() {
    let mut rng = seeded_rng();
    let (mut cluster, told) = loaded(3);
    let leader = cluster.leader();
    let follower = (0..3)
        .find(|node| *node != leader)
        .expect("there are three");
    let records = acknowledged_records(&cluster, follower);
    let record = &records[rng.random_range(0..records.len())];
    damage(record, &mut rng);
    let repaired = "repaired 1, 0 left";
    eventually("the damage to be found and repaired", || {
        cluster.nodes[follower].log().contains(repaired)
    });
    wait_repaired(&cluster, follower);
    cluster.nodes[follower].kill();
    cluster.nodes[follower].start();
    cluster.nodes[follower].wait_listening();
    cluster.wait_converged();
    told.check(&dump(&cluster));
}

/// `kvctl scrub` says which log is damaged, and that it is sound again when the peers that hold the entry are back.
#[test]
fn scrub_says_what_is_damaged_and_later_that_it_is_repaired() {
    let mut rng = seeded_rng();
    let (mut cluster, told) = loaded(3);
    let sound = cluster.kvctl(&["scrub"]).ok();
    assert_eq!(sound.matches("\tPASS\t").count(), 3, "{sound}");
    let records = acknowledged_records(&cluster, 0);
    let record = &records[rng.random_range(0..records.len())];
    // Nobody who could help is there.
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    damage(record, &mut rng);
    let scrub = cluster.kvctl_at(0, &["scrub", "n1"]).expect_code(1);
    let text = scrub.text();
    assert!(text.starts_with("n1\tFAIL\t"), "{text}");
    assert!(text.contains("1 damaged"), "{text}");
    for node in [1, 2] {
        cluster.nodes[node].start();
        cluster.nodes[node].wait_listening();
    }
    wait_repaired(&cluster, 0);
    cluster.wait_converged();
    let sound = cluster.kvctl(&["scrub"]).ok();
    assert_eq!(sound.matches("\tPASS\t").count(), 3, "{sound}");
    told.check(&dump(&cluster));
}
