//! The HTTP side door.

use kvd_sim::process::{Cluster, HttpAnswer, http_request};
use serde_json::Value;

use super::cluster;

fn ask(
    cluster: &Cluster,
    node: usize,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> HttpAnswer {
    http_request(cluster.nodes[node].http, method, path, headers, body).expect("the door answers")
}

fn post(cluster: &Cluster, node: usize, path: &str, body: &[u8]) -> HttpAnswer {
    ask(cluster, node, "POST", path, &[], body)
}

fn get(cluster: &Cluster, node: usize, path: &str) -> HttpAnswer {
    ask(cluster, node, "GET", path, &[], b"")
}

/// HTTP door: a value is set and read back byte for byte, an absent key is 404, a deleted one too.
#[test]
fn a_value_is_set_read_and_deleted() {
    let cluster = cluster();
    let value: Vec<u8> = (0..=255).collect();
    let set = post(&cluster, 0, "/set/http-bytes", &value);
    assert_eq!(set.code, 200, "{}", set.text());
    assert_eq!(set.json()["version"], 1);
    let got = get(&cluster, 1, "/get/http-bytes");
    assert_eq!((got.code, got.body), (200, value));
    assert_eq!(get(&cluster, 2, "/get/http-absent").code, 404);
    assert_eq!(
        ask(&cluster, 2, "DELETE", "/del/http-bytes", &[], b"").code,
        200
    );
    assert_eq!(
        ask(&cluster, 2, "DELETE", "/del/http-bytes", &[], b"").code,
        404
    );
    assert_eq!(get(&cluster, 0, "/get/http-bytes").code, 404);
}

/// HTTP door: a form gives its field `value`; every other body is the value itself.
#[test]
fn a_form_gives_its_field() {
    let cluster = cluster();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(
        ask(
            &cluster,
            0,
            "POST",
            "/set/http-form",
            &form,
            b"value=a+b%26c&other=1"
        )
        .code,
        200
    );
    assert_eq!(get(&cluster, 0, "/get/http-form").text(), "a b&c");
    assert_eq!(post(&cluster, 0, "/set/http-form", b"value=a+b").code, 200);
    assert_eq!(get(&cluster, 0, "/get/http-form").text(), "value=a+b");
}

/// HTTP door: the status of the node itself, with the names of the older interface beside it.
#[test]
fn the_status_has_the_older_names_too() {
    let cluster = cluster();
    let answer = get(&cluster, 1, "/status");
    assert_eq!(answer.code, 200);
    let status = answer.json();
    assert_eq!(status["name"], "n2");
    for field in [
        "id",
        "role",
        "term",
        "voted_for",
        "commit_index",
        "last_applied",
        "next_index",
        "match_index",
        "first_index",
        "last_index",
        "snapshot_index",
        "voters",
        "learners",
        "storage",
        "state_hash",
        "uptime_s",
        "version",
    ] {
        assert!(status.get(field).is_some(), "no {field} in {status}");
    }
    for (older, newer) in [
        ("state", "role"),
        ("voted for", "voted_for"),
        ("commit index", "commit_index"),
        ("last applied", "last_applied"),
        ("next index", "next_index"),
        ("match index", "match_index"),
    ] {
        assert_eq!(status.get(older), status.get(newer), "{older}");
    }
    let leaders = (0..3)
        .filter(|&node| get(&cluster, node, "/status").json()["role"] == "leader")
        .count();
    assert_eq!(leaders, 1);
}

/// HTTP door: alive and ready with a quorum; without one see `quorum`.
#[test]
fn a_healthy_node_is_alive_and_ready() {
    let cluster = cluster();
    for node in 0..3 {
        assert_eq!(get(&cluster, node, "/livez").code, 200);
        assert_eq!(get(&cluster, node, "/readyz").code, 200);
        assert_eq!(get(&cluster, node, "/readyz?verbose").code, 200);
    }
}

/// HTTP door: what comes from a web page is refused, and nothing is written.
#[test]
fn a_foreign_host_and_an_origin_are_refused() {
    let cluster = cluster();
    let origin = [("Origin", "http://example.org")];
    let host = [("Host", "example.org:7480")];
    for headers in [origin, host] {
        assert_eq!(
            ask(&cluster, 0, "POST", "/set/http-page", &headers, b"x").code,
            403,
            "{headers:?}"
        );
        assert_eq!(
            ask(&cluster, 0, "GET", "/status", &headers, b"").code,
            403,
            "{headers:?}"
        );
    }
    assert_eq!(get(&cluster, 0, "/get/http-page").code, 404);
    let local = [("Host", "localhost:7480")];
    assert_eq!(ask(&cluster, 0, "GET", "/livez", &local, b"").code, 200);
}

/// HTTP door: the limits of keys and values hold here as well, and a wrong question is the asker's fault.
#[test]
fn the_limits_hold() {
    let cluster = cluster();
    assert_eq!(
        post(&cluster, 0, "/set/http-large", &vec![b'x'; 1 << 20]).code,
        200
    );
    assert_eq!(
        post(&cluster, 0, "/set/http-large", &vec![b'y'; (1 << 20) + 1]).code,
        413
    );
    assert_eq!(
        get(&cluster, 0, "/get/http-large").body,
        vec![b'x'; 1 << 20]
    );
    let long = "k".repeat(4 << 10);
    assert_eq!(post(&cluster, 0, &format!("/set/{long}"), b"v").code, 200);
    assert_eq!(post(&cluster, 0, &format!("/set/{long}k"), b"v").code, 413);
    assert_eq!(get(&cluster, 0, "/get/k?consistency=perhaps").code, 400);
    assert_eq!(get(&cluster, 0, "/no/such/path").code, 404);
}

/// HTTP door, the old test of the 250 keys: set through every node, read back through every node.
#[test]
fn two_hundred_and_fifty_keys_are_the_same_through_every_node() {
    let cluster = cluster();
    for number in 0..250 {
        let answer = post(
            &cluster,
            number % 3,
            &format!("/set/http-many-{number}"),
            format!("value {number}").as_bytes(),
        );
        assert_eq!(answer.code, 200, "{}", answer.text());
    }
    for node in 0..3 {
        for number in 0..250 {
            let answer = get(&cluster, node, &format!("/get/http-many-{number}"));
            assert_eq!(
                (answer.code, answer.text()),
                (200, format!("value {number}"))
            );
        }
    }
    let stale: Value = get(&cluster, 0, "/status").json();
    assert!(
        stale["commit_index"]
            .as_u64()
            .is_some_and(|index| index > 250),
        "{stale}"
    );
}
