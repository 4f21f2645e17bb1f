//! Who is served.

use std::time::{Duration, SystemTime};

use kvd_sim::process::{Cluster, Dialled, Dialler, NodeProcess, Presented, eventually};
use raft_net::pki::{Authority, IssuedCertificate, Validity};
use raft_net::{CLIENT_ALPN, ClusterId, Identity, PEER_ALPN};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Case {
    name: &'static str,
    shown: Option<IssuedCertificate>,
    served: bool,
}

fn cases(cluster: &Cluster) -> Vec<Case> {
    let own = cluster.authority();
    let client = Identity::Client {
        cluster: cluster.id,
        name: "app".to_owned(),
    };
    let node = Identity::Node {
        cluster: cluster.id,
        name: "n9".to_owned(),
        id: 9,
    };
    let elsewhere = ClusterId(cluster.id.0 ^ 1);
    let stranger = Identity::Client {
        cluster: elsewhere,
        name: "app".to_owned(),
    };
    let foreign = Authority::create(cluster.id, "foreign", 1).expect("an authority");
    let wrong_cluster =
        Authority::from_pem(elsewhere, own.ca_pem(), own.key_pem()).expect("an authority");
    let now = SystemTime::now();
    let expired = Validity {
        not_before: now - 2 * DAY,
        not_after: now - DAY,
    };
    let early = Validity {
        not_before: now + DAY,
        not_after: now + 2 * DAY,
    };
    let good = Validity::days(1);
    let made = |authority: &Authority, identity: &Identity, validity| {
        Some(
            authority
                .issue(identity, validity, &[])
                .expect("a certificate"),
        )
    };
    let case = |name, shown, served| Case {
        name,
        shown,
        served,
    };
    vec![
        case("no certificate", None, false),
        case("another authority", made(&foreign, &client, good), false),
        case("expired", made(&own, &client, expired), false),
        case("not yet valid", made(&own, &client, early), false),
        case("a node's certificate", made(&own, &node, good), false),
        case(
            "another cluster, same authority",
            made(&wrong_cluster, &stranger, good),
            false,
        ),
        case("right", made(&own, &client, good), true),
    ]
}

fn presented(case: &Case) -> Presented<'_> {
    case.shown
        .as_ref()
        .map_or(Presented::Nothing, |made| Presented::Pem {
            cert: &made.cert_pem,
            key: &made.key_pem,
        })
}

fn reasons_logged(node: &NodeProcess) -> usize {
    node.log()
        .lines()
        .filter(|line| line.to_ascii_lowercase().contains("refus"))
        .count()
}

/// Case 59: clients with no, a foreign, an expired, an early, a node's and another cluster's certificate are refused, each with
/// a line that says why; the right one is served. With the peer protocol none of them is.
#[test]
fn only_the_right_certificate_is_served() {
    let cluster = Cluster::builder().nodes(1).build();
    let node = &cluster.nodes[0];
    let dialler = Dialler::new(&cluster.secret("ca.pem"));
    for case in cases(&cluster) {
        let before = reasons_logged(node);
        let outcome = dialler.dial(node.address, CLIENT_ALPN, presented(&case));
        match (&outcome, case.served) {
            (Dialled::Served, true) => continue,
            (Dialled::Refused(reason), false) => {
                assert!(!reason.contains("timed out"), "{}: {reason}", case.name)
            }
            _ => panic!("{}: {outcome:?}", case.name),
        }
        eventually(&format!("a line on {}", case.name), || {
            reasons_logged(node) > before
        });
    }
    for case in cases(&cluster) {
        let outcome = dialler.dial(node.address, PEER_ALPN, presented(&case));
        assert_ne!(outcome, Dialled::Served, "{} as a peer", case.name);
    }
    let log = node.log();
    assert!(
        !log.contains("panicked") && !log.contains("stack backtrace"),
        "{log}"
    );
    assert!(cluster.kvctl(&["set", "k", "v"]).ok().contains("OK"));
}

/// Case 59 with `kvctl`: the exit code says that it is the certificate, and a client may not do what is for administrators.
#[test]
fn kvctl_says_that_it_is_not_authorised() {
    let cluster = Cluster::builder().nodes(1).build();
    let words = |case: &Case| {
        let file = |name: &str, text: &str| {
            let path = cluster.home().join(name);
            std::fs::write(&path, text).expect("our directory");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("our file");
            path.display().to_string()
        };
        let made = case.shown.as_ref().expect("a certificate");
        let mut flags = cluster.endpoint_flags(0);
        flags[5] = file("case.pem", &made.cert_pem);
        flags[7] = file("case.key", &made.key_pem);
        flags
    };
    let all = cases(&cluster);
    let by_name = |name: &str| all.iter().find(|case| case.name == name).expect("a case");
    for (name, words_after, code) in [
        ("right", ["set", "app", "v"], 0),
        ("right", ["leader", "transfer", "n1"], 6),
        ("expired", ["set", "app", "w"], 6),
        ("another authority", ["set", "app", "w"], 6),
        // Here it is kvctl that does not trust the node.
        ("another cluster, same authority", ["set", "app", "w"], 3),
    ] {
        let flags = words(by_name(name));
        let mut line: Vec<&str> = flags.iter().map(String::as_str).collect();
        line.extend(words_after);
        let ran = cluster.kvctl(&line).expect_code(code);
        assert!(code == 0 || ran.stderr.starts_with("error: "), "{ran:?}");
    }
    assert_eq!(cluster.kvctl(&["get", "app"]).ok().trim_end(), "v");
}
