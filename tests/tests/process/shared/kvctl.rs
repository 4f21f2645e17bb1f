//! `kvctl` as people and scripts use it.

use kvd_sim::process::{Cluster, free_port};

use super::cluster;

#[track_caller]
fn ok(cluster: &Cluster, words: &[&str]) -> String {
    cluster.kvctl(words).ok()
}

/// A value goes in from stdin and comes out byte for byte, whatever the bytes.
#[test]
fn a_binary_value_makes_the_round_trip() {
    let cluster = cluster();
    let value: Vec<u8> = (0..=255).chain([b'\n', b'\n', 0]).collect();
    cluster.kvctl_with(&["set", "ctl-bytes", "-"], &value).ok();
    let got = cluster.kvctl(&["get", "ctl-bytes"]).expect_code(0);
    assert_eq!(got.stdout, value);
    let raw = cluster
        .kvctl(&["get", "ctl-bytes", "-o", "raw"])
        .expect_code(0);
    assert_eq!(raw.stdout, value);
}

/// The words of an answered write, and the exit code of an absent key.
#[test]
fn a_write_says_its_version_and_an_absent_key_is_one() {
    let cluster = cluster();
    let first = ok(&cluster, &["set", "ctl-color", "red"]);
    assert!(
        first.starts_with("OK") && first.contains("version 1"),
        "{first}"
    );
    let second = ok(&cluster, &["set", "ctl-color", "blue"]);
    assert!(second.contains("version 2"), "{second}");
    assert_eq!(ok(&cluster, &["get", "ctl-color"]).trim_end(), "blue");
    let absent = cluster.kvctl(&["get", "ctl-absent"]).expect_code(1);
    assert_eq!(absent.stdout, b"");
}

/// `--if-absent` and `cas`: a comparison that fails is a clear no, and nothing is written.
#[test]
fn a_failed_comparison_writes_nothing() {
    let cluster = cluster();
    ok(&cluster, &["set", "ctl-cas", "one", "--if-absent"]);
    cluster
        .kvctl(&["set", "ctl-cas", "other", "--if-absent"])
        .expect_code(1);
    assert_eq!(ok(&cluster, &["get", "ctl-cas"]).trim_end(), "one");
    ok(&cluster, &["cas", "ctl-cas", "one", "two"]);
    cluster
        .kvctl(&["cas", "ctl-cas", "one", "three"])
        .expect_code(1);
    assert_eq!(ok(&cluster, &["get", "ctl-cas"]).trim_end(), "two");
}

/// `incr` counts in text from 0, and leaves what is no number alone.
#[test]
fn counting_in_text_is_refused() {
    let cluster = cluster();
    assert_eq!(ok(&cluster, &["incr", "ctl-count"]).trim_end(), "1");
    assert_eq!(ok(&cluster, &["incr", "ctl-count", "41"]).trim_end(), "42");
    assert_eq!(ok(&cluster, &["incr", "ctl-count", "-2"]).trim_end(), "40");
    ok(&cluster, &["set", "ctl-text", "many"]);
    cluster.kvctl(&["incr", "ctl-text"]).expect_code(1);
    assert_eq!(ok(&cluster, &["get", "ctl-text"]).trim_end(), "many");
}

/// `ls` and `del` by prefix and by key.
#[test]
fn keys_are_listed_and_deleted() {
    let cluster = cluster();
    for key in ["ctl-list/b", "ctl-list/a", "ctl-list/c"] {
        ok(&cluster, &["set", key, "x"]);
    }
    let listed = ok(&cluster, &["ls", "ctl-list/"]);
    let keys: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(keys, ["ctl-list/a", "ctl-list/b", "ctl-list/c"]);
    ok(&cluster, &["del", "ctl-list/a", "ctl-list/b"]);
    let listed = ok(&cluster, &["ls", "ctl-list/"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    cluster.kvctl(&["get", "ctl-list/a"]).expect_code(1);
    assert_eq!(ok(&cluster, &["del", "ctl-list/a"]).trim_end(), "0");
}

/// Output formats: plain escapes what is no plain text, JSON says what it cannot hold, an unknown format is a wrong command line.
#[test]
fn the_formats_are_what_they_promise() {
    let cluster = cluster();
    cluster
        .kvctl_with(&["set", "ctl-format", "-"], b"a\tb\nc\\\xff")
        .ok();
    let plain = ok(&cluster, &["get", "ctl-format", "--prefix", "-o", "plain"]);
    assert!(
        plain.contains(r"a\tb\nc\\\xff") || plain.contains(r"a\tb\nc\\\xFF"),
        "{plain}"
    );
    let json = cluster.kvctl(&["get", "ctl-format", "-o", "json"]).json();
    assert_eq!(json["v"], 1, "{json}");
    assert!(json.to_string().contains("b64"), "{json}");
    cluster
        .kvctl(&["get", "ctl-format", "-o", "perhaps"])
        .expect_code(2);
    cluster.kvctl(&["fly"]).expect_code(2);
    let status = cluster.kvctl(&["status", "-o", "json"]).json();
    assert_eq!(status["v"], 1);
    assert_eq!(status["cluster"]["name"], "test");
    assert_eq!(status["cluster"]["id"], cluster.id.to_string());
    assert_eq!(
        status["nodes"].as_array().map(Vec::len),
        Some(3),
        "{status}"
    );
    cluster.kvctl(&["health"]).ok();
}

/// Nobody reachable: exit 3 and the three parts.
#[test]
fn nobody_reachable_is_three() {
    let cluster = cluster();
    let mut flags = cluster.endpoint_flags(0);
    flags[1] = format!("127.0.0.1:{}", free_port());
    let mut words: Vec<&str> = flags.iter().map(String::as_str).collect();
    words.extend(["--timeout", "1s", "get", "k"]);
    let ran = cluster.kvctl(&words).expect_code(3);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("\nhelp: "), "{}", ran.stderr);
}

/// `import` and `export` are each other's inverse, escapes included.
#[test]
fn what_was_exported_can_be_imported() {
    let cluster = cluster();
    let lines =
        b"ctl-bulk/a\tplain\nctl-bulk/b\ttab \\t newline \\n backslash \\\\\nctl-bulk/c\t\n";
    let file = cluster.home().join("bulk.tsv");
    std::fs::write(&file, lines).expect("our directory");
    ok(&cluster, &["import", &file.display().to_string()]);
    let exported = cluster.kvctl(&["export", "ctl-bulk/"]).expect_code(0);
    assert_eq!(
        String::from_utf8_lossy(&exported.stdout),
        String::from_utf8_lossy(lines)
    );
    assert_eq!(
        ok(&cluster, &["get", "ctl-bulk/b"]),
        "tab \t newline \n backslash \\"
    );
}
