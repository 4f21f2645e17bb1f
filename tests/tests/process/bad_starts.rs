//! What `kvd` refuses to start with: each with its exit code and one clear last line, and nothing lost.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kvd_sim::process::{Cluster, Ran};
use raft_net::pki::{Authority, IssuedCertificate, Validity};
use raft_net::{ClusterId, Identity};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn joined(nodes: usize) -> Cluster {
    Cluster::builder().nodes(nodes).not_started().build()
}

/// One line, that begins with the code and holds these words.
#[track_caller]
fn assert_last_line(line: &str, code: i32, words: &[&str]) {
    assert!(
        line.starts_with(&format!("exit {code}: ")),
        "last line: {line}"
    );
    assert!(line.len() < 700, "not one clear line: {line}");
    for word in words {
        assert!(
            line.contains(word),
            "`{word}` is not in the last line: {line}"
        );
    }
}

#[track_caller]
fn assert_refused(ran: Ran, code: i32, words: &[&str]) {
    let ran = ran.expect_code(code);
    assert_last_line(
        ran.stderr.lines().next_back().unwrap_or_default(),
        code,
        words,
    );
}

/// Must show, bad input: a directory without identity.
#[test]
fn a_directory_without_identity_is_refused() {
    let mut cluster = joined(1);
    let empty = cluster.home().join("empty");
    std::fs::create_dir(&empty).expect("our directory");
    let node = &mut cluster.nodes[0];
    node.configure(&[("node", "data", empty.display().to_string().into())]);
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 76);
    assert_last_line(&line, 76, &["empty", "kvd join"]);
    assert_eq!(
        std::fs::read_dir(&empty).expect("our directory").count(),
        0,
        "nothing was made in it"
    );
}

/// Must show, bad input: a data directory of another node, and one of another cluster.
#[test]
fn a_data_directory_of_another_node_or_cluster_is_refused() {
    let mut cluster = joined(2);
    let other_node = cluster.nodes[1].data_dir().display().to_string();
    cluster.nodes[0].configure(&[("node", "data", other_node.into())]);
    let (code, line) = cluster.nodes[0].start_refused(&[]);
    assert_eq!(code, 76);
    assert_last_line(&line, 76, &[]);

    let elsewhere = joined(1);
    let other_cluster = elsewhere.nodes[0].data_dir().display().to_string();
    cluster.nodes[1].configure(&[("node", "data", other_cluster.into())]);
    let (code, line) = cluster.nodes[1].start_refused(&[]);
    assert_eq!(code, 76);
    assert_last_line(&line, 76, &[]);
}

/// Must show, bad input: a locked directory.
#[test]
fn a_directory_in_use_is_refused_and_its_owner_goes_on() {
    let mut cluster = Cluster::builder().nodes(1).build();
    let config = cluster.nodes[0].config_file().display().to_string();
    assert_refused(cluster.kvd(&["run", "--config", &config]), 75, &["data"]);
    cluster.nodes[0].assert_alive();
    assert!(cluster.kvctl(&["set", "k", "v"]).ok().contains("OK"));
}

/// Must show, bad input: a port in use, for peers and clients and for HTTP.
#[test]
fn a_port_in_use_is_refused() {
    let mut cluster = joined(1);
    let node = &mut cluster.nodes[0];
    let port = node.address.port().to_string();
    let held = UdpSocket::bind(node.address).expect("the port is ours");
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 71);
    assert_last_line(&line, 71, &[&port]);
    drop(held);
    let port = node.http.port().to_string();
    let held = TcpListener::bind(node.http).expect("the port is ours");
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 71);
    assert_last_line(&line, 71, &[&port]);
    drop(held);
    node.start();
    node.wait_listening();
}

/// Must show, bad input: an unknown configuration key.
#[test]
fn an_unknown_configuration_key_is_refused_with_a_suggestion() {
    let mut cluster = joined(1);
    let node = &mut cluster.nodes[0];
    node.configure(&[("raft", "elction_timeout", "1s".into())]);
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 78);
    assert_last_line(&line, 78, &["elction_timeout"]);
    let log = node.log();
    assert!(log.contains("election_timeout"), "no suggestion: {log}");
    assert!(log.contains("kvd.toml"), "no file: {log}");
}

fn write_certificate(tls: &Path, made: &IssuedCertificate) {
    std::fs::write(tls.join("node.pem"), &made.cert_pem).expect("our directory");
    std::fs::write(tls.join("node.key"), &made.key_pem).expect("our directory");
}

/// Must show, bad input: a missing, expired, not yet valid or foreign certificate, and that of another node.
#[test]
fn a_certificate_that_cannot_be_used_is_refused() {
    let mut cluster = joined(2);
    let own = cluster.authority();
    let cluster_id = cluster.id;
    let other_node = std::fs::read(cluster.nodes[1].dir.join("tls/node.pem")).expect("joined");
    let other_key = std::fs::read(cluster.nodes[1].dir.join("tls/node.key")).expect("joined");
    let node = &mut cluster.nodes[0];
    let tls = node.dir.join("tls");
    let identity = raft_net::Credentials::load(&tls)
        .expect("join wrote them")
        .identity()
        .clone();
    let now = SystemTime::now();
    let expired = Validity {
        not_before: now - 2 * DAY,
        not_after: now - DAY,
    };
    let early = Validity {
        not_before: now + DAY,
        not_after: now + 2 * DAY,
    };
    let foreign = Authority::create(cluster_id, "foreign", 1).expect("an authority");
    let client = Identity::Client {
        cluster: cluster_id,
        name: "n1".to_owned(),
    };
    let made = [
        (own.issue(&identity, expired, &[]), "expired"),
        (own.issue(&identity, early, &[]), "not valid yet"),
        (foreign.issue(&identity, Validity::days(1), &[]), ""),
        (own.issue(&client, Validity::days(1), &[]), ""),
    ];
    for (made, words) in made {
        write_certificate(&tls, &made.expect("a certificate"));
        let (code, line) = node.start_refused(&[]);
        assert_eq!(code, 78, "{line}");
        assert_last_line(&line, 78, &[words]);
    }
    std::fs::write(tls.join("node.pem"), other_node).expect("our directory");
    std::fs::write(tls.join("node.key"), other_key).expect("our directory");
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 78);
    assert_last_line(&line, 78, &["n2"]);
    std::fs::remove_file(tls.join("node.pem")).expect("it was there");
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 78);
    assert_last_line(&line, 78, &["node.pem"]);
}

/// Must show, bad input: permissions of keys too wide.
#[test]
fn a_key_that_others_can_read_is_refused() {
    let mut cluster = joined(1);
    let node = &mut cluster.nodes[0];
    let key = node.dir.join("tls/node.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("our file");
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 77);
    assert_last_line(&line, 77, &["node.key"]);
}

/// Must show, bad input: a bundle is used once, and only by its owner.
#[test]
fn a_second_join_a_damaged_and_an_open_bundle_are_refused() {
    let cluster = joined(1);
    let node = &cluster.nodes[0];
    let before = std::fs::read(node.config_file()).expect("joined");
    assert_refused(cluster.join(node), 76, &["data"]);
    assert_eq!(
        std::fs::read(node.config_file()).expect("joined"),
        before,
        "nothing was changed"
    );

    let bundle = cluster.secrets().join("n1.kvd");
    let text = std::fs::read_to_string(&bundle).expect("init wrote it");
    std::fs::write(&bundle, &text[..text.len() / 2]).expect("our file");
    let elsewhere = cluster.home().join("elsewhere").display().to_string();
    let bundle_text = bundle.display().to_string();
    assert_refused(
        cluster.kvd(&["join", &bundle_text, "--dir", &elsewhere]),
        78,
        &["bundle was damaged"],
    );

    std::fs::write(&bundle, &text).expect("our file");
    std::fs::set_permissions(&bundle, std::fs::Permissions::from_mode(0o644)).expect("our file");
    assert_refused(
        cluster.kvd(&["join", &bundle_text, "--dir", &elsewhere]),
        77,
        &["n1.kvd"],
    );
}

/// Must show, bad input: a wrong cluster. A node configured for one cluster with the certificate of another.
#[test]
fn a_configuration_of_another_cluster_is_refused() {
    let mut cluster = joined(1);
    let other = ClusterId(cluster.id.0 ^ 1);
    let node = &mut cluster.nodes[0];
    node.configure(&[("cluster", "id", other.to_string().into())]);
    let (code, line) = node.start_refused(&[]);
    assert_eq!(code, 78);
    assert_last_line(&line, 78, &[&other.to_string()]);
}

/// A wrong command line is told from a wrong configuration.
#[test]
fn a_wrong_command_line_ends_with_two() {
    let cluster = joined(1);
    cluster.kvd(&["fly"]).expect_code(2);
    cluster.kvd(&["run", "--no-such-flag"]).expect_code(2);
}
