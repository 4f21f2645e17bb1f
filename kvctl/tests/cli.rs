//! The binary without a cluster: what it makes, what it refuses, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use kvd::bundle::Bundle;
use kvd::contexts;
use raft_net::{Credentials, Identity};

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A run in `dir` that knows nothing of the user's own clusters.
fn kvctl(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kvctl").unwrap();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KVCTL_")) {
        command.env_remove(name);
    }
    command
        .current_dir(dir)
        .env("KVCTL_CONFIG", dir.join("contexts.toml"))
        .args(arguments);
    command
}

fn stderr(dir: &Path, arguments: &[&str], code: i32) -> String {
    let assert = kvctl(dir, arguments).assert().code(code);
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn cluster_init_makes_bundles_that_agree_and_keys_that_others_cannot_read() {
    let dir = tempdir();
    let nodes = [
        "cluster",
        "init",
        "prod",
        "n1=127.0.0.1:7411",
        "n2=127.0.0.1:7412",
        "n3=10.0.0.3:7413",
    ];
    let assert = kvctl(dir.path(), &nodes).assert().success();
    let said = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert!(said.starts_with("Made cluster prod ("), "{said}");
    let home = dir.path().join("prod");
    for secret in ["ca.key", "admin.key", "n1.kvd", "n2.kvd", "n3.kvd"] {
        assert_eq!(mode(&home.join(secret)), 0o600, "{secret}");
    }
    let bundles = ["n1", "n2", "n3"]
        .map(|name| Bundle::read_file(&home.join(format!("{name}.kvd"))).unwrap());
    for bundle in &bundles {
        assert_eq!(bundle.members, bundles[0].members);
        let credentials = Credentials::from_pem(
            bundle.ca_pem.as_bytes(),
            bundle.cert_pem.as_bytes(),
            bundle.key_pem.as_bytes(),
        )
        .unwrap();
        let expected = Identity::Node {
            cluster: bundle.cluster,
            name: bundle.node.clone(),
            id: bundle.node_id,
        };
        assert_eq!(*credentials.identity(), expected);
    }
    assert_eq!(bundles[1].listen, "127.0.0.1:7412".parse().unwrap());
    assert_eq!(bundles[2].listen, "0.0.0.0:7413".parse().unwrap());
    let doors = bundles.map(|bundle| bundle.http.unwrap().port());
    assert_eq!(doors, [7480, 7481, 7480]);
}

#[test]
fn cluster_init_adds_a_context_that_works_as_credentials() {
    let dir = tempdir();
    kvctl(
        dir.path(),
        &["cluster", "init", "prod", "n1=127.0.0.1:7411"],
    )
    .assert()
    .success();
    let contexts = contexts::read(&dir.path().join("contexts.toml")).unwrap();
    assert_eq!(contexts.default.as_deref(), Some("prod"));
    let context = &contexts.contexts["prod"];
    assert_eq!(context.endpoints, ["127.0.0.1:7411"]);
    let credentials = Credentials::load_files(&context.ca, &context.cert, &context.key).unwrap();
    assert_eq!(credentials.identity().role(), "admin");
    let listed = kvctl(dir.path(), &["context", "list"]).assert().success();
    assert_eq!(
        listed.get_output().stdout,
        b"default\tprod\t127.0.0.1:7411\n"
    );
    kvctl(dir.path(), &["context", "remove", "prod"])
        .assert()
        .success();
    kvctl(dir.path(), &["context", "show"]).assert().code(1);
}

#[test]
fn keys_of_a_cluster_are_never_overwritten() {
    let dir = tempdir();
    let init = [
        "cluster",
        "init",
        "prod",
        "n1=127.0.0.1:7411",
        "--no-context",
    ];
    kvctl(dir.path(), &init).assert().success();
    let before = fs::read(dir.path().join("prod/ca.key")).unwrap();
    let said = stderr(dir.path(), &init, 2);
    assert!(said.contains("never overwritten"), "{said}");
    assert_eq!(fs::read(dir.path().join("prod/ca.key")).unwrap(), before);
    assert!(!dir.path().join("contexts.toml").exists());
}

#[test]
fn without_a_cluster_the_error_says_how_to_name_one() {
    let dir = tempdir();
    let said = stderr(dir.path(), &["get", "color"], 2);
    assert!(said.contains("help: kvctl cluster init"), "{said}");
}

#[test]
fn nobody_there_is_exit_3_with_the_finding() {
    let dir = tempdir();
    // A port that was free a moment ago.
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let node = format!("n1=127.0.0.1:{port}");
    kvctl(dir.path(), &["cluster", "init", "prod", &node])
        .assert()
        .success();
    for arguments in [
        ["get", "color"].as_slice(),
        &["set", "color", "red"],
        &["status"],
        &["leader"],
        &["ls"],
    ] {
        let arguments = [arguments, &["--timeout", "500ms"]].concat();
        let said = stderr(dir.path(), &arguments, 3);
        assert!(
            said.starts_with("error: nobody could be reached\n"),
            "{said}"
        );
        assert!(said.contains("connection refused"), "{said}");
    }
    let health = kvctl(dir.path(), &["health", "--timeout", "500ms"])
        .assert()
        .code(1);
    let said = String::from_utf8(health.get_output().stdout.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("unhealthy: no leader"), "{said}");
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let dir = tempdir();
    kvctl(
        dir.path(),
        &["cluster", "init", "prod", "n1=127.0.0.1:7411"],
    )
    .assert()
    .success();
    let key = dir.path().join("prod/admin.key");
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let said = stderr(dir.path(), &["get", "color"], 2);
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn a_value_is_never_read_where_input_is_forbidden() {
    let dir = tempdir();
    kvctl(
        dir.path(),
        &["cluster", "init", "prod", "n1=127.0.0.1:7411"],
    )
    .assert()
    .success();
    let said = stderr(dir.path(), &["set", "color", "--no-input"], 2);
    assert!(said.contains("there is no value"), "{said}");
}

#[test]
fn answers_without_a_cluster_exist_in_every_format() {
    let dir = tempdir();
    for format in ["auto", "plain", "json", "raw"] {
        kvctl(dir.path(), &["version", "-o", format])
            .assert()
            .success();
        kvctl(dir.path(), &["context", "list", "-o", format])
            .assert()
            .success();
    }
    let json = kvctl(dir.path(), &["version", "-o", "json"])
        .assert()
        .success();
    let value: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(value["v"], 1);
    kvctl(dir.path(), &["version", "-o", "table"])
        .assert()
        .code(2);
}
