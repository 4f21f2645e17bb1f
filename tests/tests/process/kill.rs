//! `kill -9`: nothing acknowledged is lost, nothing happens twice.

use std::fmt::Write as _;

use kvd::kv::command::KeyValue;
use kvd_sim::process::{Cluster, Load, dump, eventually, long, run_command};

/// A sorted list of words without repetition, each with a value.
fn word_list(count: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu",
        "za",
    ];
    let mut text = String::new();
    for number in 0..count {
        let word: String = (0..5)
            .rev()
            .map(|place| SYLLABLES[number >> (place * 4) & 15])
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{word}\tthe word number {number}");
    }
    text
}

/// Must show 2: an import goes on through `kill -9` of the leader, every line is acknowledged, every node's local export is
/// the input, every key has version 1; and a counter driven by 16 clients through the same kill equals their acknowledged calls.
#[test]
fn an_import_and_a_counter_survive_the_death_of_the_leader() {
    let count = if long() { 100_000 } else { 10_000 };
    let mut cluster = Cluster::start();
    let input = word_list(count);
    let file = cluster.home().join("words.tsv");
    std::fs::write(&file, &input).expect("our directory");
    // Slow enough to last for several elections.
    let rate = (count / 5).to_string();
    let path = file.display().to_string();
    let command = cluster.kvctl_command(&["import", "--timeout", "60s", "--rate", &rate, &path]);
    let import = std::thread::spawn(move || run_command(command, b""));
    let counter = Load::counting(&cluster, 16, "~counter");
    counter.wait_for_more(200);
    let leader = cluster.leader();
    let first = format!("/get/{}", input.split('\t').next().unwrap_or_default());
    eventually("the first line of the import", || {
        cluster.nodes[leader]
            .get(&first)
            .is_some_and(|answer| answer.code == 200)
    });
    cluster.nodes[leader].kill();
    assert!(!import.is_finished(), "the leader was killed in the middle");
    counter.wait_for_more(200);
    cluster.nodes[leader].start();
    let imported = import.join().expect("kvctl ends").expect_code(0);
    assert!(
        imported.stderr.contains(&count.to_string())
            || imported.text().contains(&count.to_string()),
        "{imported:?}"
    );
    let counted = counter.finish();
    assert_eq!(
        (counted.counted_unknown, counted.failed.len()),
        (0, 0),
        "retries find the new leader"
    );

    let held = dump(&cluster);
    let (counter, words): (Vec<&KeyValue>, Vec<&KeyValue>) =
        held.iter().partition(|item| item.key == "~counter");
    assert_eq!(
        counter[0].value,
        counted.counted.to_string(),
        "increments that were acknowledged"
    );
    assert_eq!(counter[0].version, counted.counted);
    assert_eq!(words.len(), count);
    assert!(
        words.iter().all(|item| item.version == 1),
        "every key was written once"
    );
    cluster.kvctl(&["del", "~counter"]).ok();
    cluster.wait_converged();
    for node in 0..3 {
        let exported = cluster.local_export(node);
        assert!(
            exported == input.as_bytes(),
            "the local export of n{} is not the input",
            node + 1
        );
    }
}

/// Must show 3: all three processes are killed at once under the load of 16 clients, several rounds, and started again.
#[test]
fn nothing_acknowledged_is_missing_after_all_were_killed() {
    let rounds = if long() { 10 } else { 3 };
    let mut cluster = Cluster::start();
    let mut told = kvd_sim::process::Acknowledged::default();
    for round in 0..rounds {
        let load = Load::writing(&cluster, 16, &format!("round{round}"));
        load.wait_for_more(300);
        for node in &mut cluster.nodes {
            node.kill();
        }
        cluster.start_all();
        load.wait_for_more(50);
        told.merge(load.finish());
        told.check(&dump(&cluster));
    }
    cluster.wait_converged();
    println!(
        "{} acknowledged, {} unknown, {} failed",
        told.written.len(),
        told.unknown.len(),
        told.failed.len()
    );
}
