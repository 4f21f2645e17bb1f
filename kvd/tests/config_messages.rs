//! What a user sees when the configuration is wrong, and which layer wins when it is right.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::time::Duration;

use kvd::config::{Config, Loaded, Sources, default_file, key};

/// The smallest complete file.
const MINIMAL: &str = "\
[cluster]
id = \"c0ffee42\"
name = \"prod\"
members = { n1 = \"10.0.0.1:7400\", n2 = \"10.0.0.2:7400\" }
[node]
name = \"n1\"
";

fn sources(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    Sources {
        file: Some(PathBuf::from("/etc/kvd/kvd.toml")),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: flags
            .iter()
            .map(|(path, value)| {
                let (section, name) = path.split_once('.').unwrap();
                (key::find(section, name).unwrap(), (*value).to_owned())
            })
            .collect(),
    }
}

fn load(text: &str) -> Loaded {
    Config::load_text(&sources(&[], &[]), text.to_owned()).unwrap()
}

fn report(text: &str) -> String {
    report_of(&sources(&[], &[]), text)
}

fn report_of(sources: &Sources, text: &str) -> String {
    Config::load_text(sources, text.to_owned())
        .unwrap_err()
        .render(false)
}

#[track_caller]
fn assert_report(report: &str, expected: &str) {
    assert_eq!(report, expected, "\n--- found ---\n{report}\n");
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let config = load(MINIMAL).config;
    assert_eq!(config.cluster.id.to_string(), "c0ffee42");
    assert_eq!(config.cluster.members["n2"], "10.0.0.2:7400");
    assert_eq!(config.node.listen, "0.0.0.0:7400".parse().unwrap());
    assert_eq!(config.node.data, PathBuf::from("/var/lib/kvd"));
    assert_eq!(config.raft.election_timeout, Duration::from_millis(300));
    assert_eq!(config.log.segment_bytes, 64 << 20);
    assert_eq!(config.log.max_bytes, 1 << 30);
    assert_eq!(config.limits.request_bytes, 1536 << 10);
    assert_eq!(config.limits.clients_per_identity, 1024);
    assert_eq!(config.http.listen, Some("127.0.0.1:7480".parse().unwrap()));
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let text = format!("{MINIMAL}[raft]\nheartbeat = \"20ms\"\nelection_timeout = \"400ms\"\n");
    let loaded = Config::load_text(
        &sources(
            &[
                ("KVD_RAFT_HEARTBEAT", "30ms"),
                ("KVD_RAFT_ELECTION_TIMEOUT", "500ms"),
            ],
            &[("raft.election_timeout", "600ms")],
        ),
        text,
    )
    .unwrap();
    assert_eq!(loaded.config.raft.heartbeat, Duration::from_millis(30));
    assert_eq!(
        loaded.config.raft.election_timeout,
        Duration::from_millis(600)
    );
    let shown: Vec<String> = loaded
        .show()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for expected in [
        "heartbeat = \"30ms\" # KVD_RAFT_HEARTBEAT",
        "election_timeout = \"600ms\" # --raft-election-timeout",
        "name = \"n1\" # /etc/kvd/kvd.toml:6",
        "keep = 2 # default",
    ] {
        assert!(
            shown.iter().any(|line| line == expected),
            "{expected}\n{shown:#?}"
        );
    }
}

#[test]
fn what_show_and_default_print_reads_back_as_the_same_configuration() {
    let loaded = load(MINIMAL);
    assert_eq!(load(&loaded.show()).config, loaded.config);
    let default = load(&default_file()).config;
    assert_eq!(default.limits, loaded.config.limits);
    assert_eq!(default.raft, loaded.config.raft);
}

#[test]
fn every_key_can_be_set_by_file_environment_and_flag() {
    for key in &key::KEYS {
        let value = if key.path() == "cluster.members" {
            "n1=10.0.0.1:7400"
        } else {
            key.example
        };
        let variable = key.variable();
        let by_variable = sources(&[(variable.as_str(), value)], &[]);
        let by_flag = sources(&[], &[(key.path().as_str(), value)]);
        for source in [by_variable, by_flag] {
            let loaded = Config::load_text(&source, MINIMAL.to_owned());
            assert!(loaded.is_ok(), "{}: {}", key.path(), loaded.unwrap_err());
        }
    }
}

#[test]
fn an_unknown_key_is_shown_with_line_caret_and_suggestion() {
    let text = format!("{MINIMAL}[raft]\nelection_timout = \"1s\"\n");
    assert_report(
        &report(&text),
        "\
error: unknown key `raft.election_timout`
 --> /etc/kvd/kvd.toml:8:1
  |
8 | election_timout = \"1s\"
  | ^^^^^^^^^^^^^^^ expected one of heartbeat, election_timeout
  |
  = help: did you mean `election_timeout`?",
    );
}

#[test]
fn a_key_or_table_in_the_wrong_place_is_sent_home() {
    let key = report(&format!("{MINIMAL}[raft]\nsegment_bytes = \"1MiB\"\n"));
    assert!(
        key.contains("help: `segment_bytes` belongs under [log]"),
        "{key}"
    );
    let table = report(&format!("listen = \"0.0.0.0:1\"\n{MINIMAL}"));
    assert!(
        table.contains("help: `listen` belongs under [node]"),
        "{table}"
    );
    let section = report(&format!("{MINIMAL}[limit]\nkey_bytes = 1\n"));
    assert!(
        section.contains("help: did you mean [limits]?"),
        "{section}"
    );
}

#[test]
fn an_election_timeout_below_five_heartbeats_is_refused_with_the_arithmetic() {
    let text = format!("{MINIMAL}[raft]\nelection_timeout = \"200ms\"\n");
    assert_report(
        &report(&text),
        "\
error: election_timeout is too short
 --> /etc/kvd/kvd.toml:8:20
  |
8 | election_timeout = \"200ms\"
  |                    ^^^^^^^ 200ms is less than 5 heartbeats (5 x 50ms)
  |
  = help: set it to at least \"250ms\", or lower raft.heartbeat",
    );
}

/// Both would be one tick of the clock, and a leader would be given up before its second heartbeat.
#[test]
fn an_election_timeout_below_two_ticks_is_refused() {
    let text = format!("{MINIMAL}[raft]\nheartbeat = \"1ms\"\nelection_timeout = \"5ms\"\n");
    assert_report(
        &report(&text),
        "\
error: election_timeout is too short
 --> /etc/kvd/kvd.toml:9:20
  |
9 | election_timeout = \"5ms\"
  |                    ^^^^^ 5ms is less than 20ms
  |
  = help: set it to at least \"20ms\"",
    );
}

#[test]
fn all_problems_are_reported_at_once_and_in_the_order_of_the_file() {
    let text = "\
[cluster]
id = \"coffee\"
name = \"prod\"
members = { n1 = \"10.0.0.1\", n2 = 7 }
[node]
listen = \"everywhere\"
[raft]
heartbeat = 50
[limits]
key_bytes = \"4 bananas\"
value_bytes = \"1PiB\"
";
    let report = report(text);
    let titles: Vec<&str> = report
        .lines()
        .filter_map(|line| line.strip_prefix("error: "))
        .collect();
    assert_eq!(
        titles,
        [
            "cluster.id cannot be used",
            "cluster.members cannot be used",
            "node.listen cannot be used",
            "raft.heartbeat cannot be used",
            "limits.key_bytes cannot be used",
            "limits.value_bytes cannot be used",
            "node.name is not set",
        ],
        "{report}"
    );
    assert!(
        report.contains("^^^^^^^^ `coffee` is not eight hex digits"),
        "{report}"
    );
    assert!(
        report.contains("expected a duration like \"50ms\", found integer"),
        "{report}"
    );
}

#[test]
fn contradictions_between_values_are_found_together() {
    let text = format!(
        "{}[log]\nsegment_bytes = \"1MiB\"\nmax_bytes = \"1MiB\"\n[limits]\nclients = 5\ntxn_ops = 0\nuncommitted_bytes = \"1KiB\"\n[http]\nlisten = \"0.0.0.0:7480\"\n[snapshot]\nkeep = 0\n",
        MINIMAL.replace("name = \"n1\"", "name = \"n9\"")
    );
    let report = report(&text);
    for expected in [
        "node.name cannot be used",
        "is not one of the members n1, n2",
        "segment_bytes is too small",
        "max_bytes is too small",
        "limits.txn_ops cannot be used",
        "limits.uncommitted_bytes cannot be used",
        "is more than limits.clients",
        "http.listen is not a loopback address",
        "snapshot.keep cannot be used",
    ] {
        assert!(
            report.contains(expected),
            "missing {expected:?} in\n{report}"
        );
    }
}

#[test]
fn a_limit_beyond_what_the_formats_allow_is_refused() {
    let text = format!(
        "{MINIMAL}[limits]\nkey_bytes = \"1MiB\"\ntxn_ops = 5000\nrequest_bytes = \"1GiB\"\nuncommitted_bytes = \"2GiB\"\n"
    );
    let report = report(&text);
    for path in ["key_bytes", "txn_ops", "request_bytes"] {
        let title = format!("error: limits.{path} cannot be used");
        assert!(report.contains(&title), "missing {title:?} in\n{report}");
    }
}

#[test]
fn bad_values_of_environment_and_flags_name_their_origin() {
    let report = report_of(
        &sources(
            &[("KVD_RAFT_HEARTBEAT", "soon")],
            &[("log.max_bytes", "much")],
        ),
        MINIMAL,
    );
    assert!(
        report.contains("the environment variable KVD_RAFT_HEARTBEAT `soon` is not a duration"),
        "{report}"
    );
    assert!(
        report.contains("the flag --log-max-bytes `much` is not a size"),
        "{report}"
    );
}

#[test]
fn a_misspelt_variable_is_a_warning_and_another_programs_variable_is_none() {
    let loaded = Config::load_text(
        &sources(
            &[("KVD_RAFT_ELECTION_TIMOUT", "1s"), ("KVD_TEST_LONG", "1")],
            &[],
        ),
        MINIMAL.to_owned(),
    )
    .unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        loaded.warnings[0].contains("did you mean KVD_RAFT_ELECTION_TIMEOUT?"),
        "{}",
        loaded.warnings[0]
    );
}

#[test]
fn a_syntax_error_points_at_its_place() {
    let report = report("[cluster\nid = 1\n");
    assert!(
        report.starts_with("error: not valid TOML\n --> /etc/kvd/kvd.toml:1:"),
        "{report}"
    );
}

#[test]
fn odd_text_never_panics() {
    for text in [
        "",
        "=",
        "\u{e9}",
        "[raft]\nheartbeat = \"\u{1f980}",
        "a.b.c = 1",
        "[[node]]",
        "cluster = 3",
        "[cluster]\nmembers = \"n1\"\n",
        "\u{0}",
    ] {
        assert!(
            Config::load_text(&sources(&[], &[]), text.to_owned()).is_err(),
            "{text:?}"
        );
        report(text);
    }
}

#[test]
fn relative_paths_of_the_file_are_relative_to_the_file() {
    let text = format!("{MINIMAL}data = \"data\"\nsocket = \"\"\n[tls]\ndir = \"tls\"\n");
    let config = load(&text).config;
    assert_eq!(config.node.data, PathBuf::from("/etc/kvd/data"));
    assert_eq!(config.node.socket, None);
    assert_eq!(config.tls.dir, PathBuf::from("/etc/kvd/tls"));
}
