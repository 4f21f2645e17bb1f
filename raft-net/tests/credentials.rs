//! What is wrong with credentials is found when they are loaded.

#![allow(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one event among all"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{CLUSTER, any_port, authority, credentials, hello, node_credentials, options};
use raft_net::pki::{Authority, IssuedCertificate, PkiError, Validity};
use raft_net::{AdmitAll, BindError, ClusterId, CredentialError, Credentials, Endpoint, Identity};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn node(id: u64) -> Identity {
    Identity::Node {
        cluster: CLUSTER,
        name: "n1".to_owned(),
        id,
    }
}

fn load(authority: &Authority, issued: &IssuedCertificate) -> Result<Credentials, CredentialError> {
    Credentials::from_pem(
        authority.ca_pem().as_bytes(),
        issued.cert_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    )
}

fn write(dir: &Path, authority: &Authority, issued: &IssuedCertificate, mode: u32) {
    fs::write(dir.join("ca.pem"), authority.ca_pem()).unwrap();
    fs::write(dir.join("node.pem"), &issued.cert_pem).unwrap();
    fs::write(dir.join("node.key"), &issued.key_pem).unwrap();
    fs::set_permissions(dir.join("node.key"), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn loaded_credentials_know_their_owner_and_their_end() {
    let authority = authority();
    let issued = authority
        .issue_node(
            "n1",
            7,
            10,
            &["n1.example.org".to_owned(), "10.0.0.1".to_owned()],
        )
        .unwrap();
    let loaded = load(&authority, &issued).unwrap();
    assert_eq!(loaded.identity(), &node(7));
    let left = loaded.expires().duration_since(SystemTime::now()).unwrap();
    assert!(left > 9 * DAY && left <= 10 * DAY, "{left:?}");
    assert!(!format!("{loaded:?} {issued:?} {authority:?}").contains("PRIVATE KEY"));
}

#[test]
fn directory_is_loaded_with_its_deny_list() {
    let authority = authority();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    write(
        dir.path(),
        &authority,
        &authority.issue_node("n1", 7, 10, &[]).unwrap(),
        0o600,
    );
    assert!(
        Credentials::load(dir.path())
            .unwrap()
            .deny_list()
            .is_empty()
    );
    fs::write(
        dir.path().join("deny"),
        "# lost laptop\nops  # and this\n\n0A:1b\n",
    )
    .unwrap();
    assert_eq!(Credentials::load(dir.path()).unwrap().deny_list().len(), 2);
}

#[test]
fn key_that_others_can_read_is_refused() {
    let authority = authority();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let issued = authority.issue_node("n1", 7, 10, &[]).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o644] {
        write(dir.path(), &authority, &issued, mode);
        let path = dir.path().join("node.key");
        assert_eq!(
            Credentials::load(dir.path()).unwrap_err(),
            CredentialError::WidePermissions { path, mode }
        );
    }
    write(dir.path(), &authority, &issued, 0o400);
    assert!(Credentials::load(dir.path()).is_ok());
}

#[test]
fn missing_files_are_named() {
    let authority = authority();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for missing in ["ca.pem", "node.pem", "node.key"] {
        write(
            dir.path(),
            &authority,
            &authority.issue_node("n1", 7, 10, &[]).unwrap(),
            0o600,
        );
        let path = dir.path().join(missing);
        fs::remove_file(&path).unwrap();
        assert_eq!(
            Credentials::load(dir.path()).unwrap_err(),
            CredentialError::Missing { path }
        );
    }
}

#[test]
fn time_is_checked_at_load() {
    let authority = authority();
    let now = SystemTime::now();
    let past = Validity {
        not_before: now - 3 * DAY,
        not_after: now - DAY,
    };
    let future = Validity {
        not_before: now + DAY,
        not_after: now + 3 * DAY,
    };
    let error = load(&authority, &authority.issue(&node(7), past, &[]).unwrap()).unwrap_err();
    assert!(
        matches!(&error, CredentialError::Expired { identity, .. } if *identity == node(7)),
        "{error:?}"
    );
    let error = load(&authority, &authority.issue(&node(7), future, &[]).unwrap()).unwrap_err();
    assert!(
        matches!(error, CredentialError::NotYetValid { .. }),
        "{error:?}"
    );
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (authority, other) = (
        authority(),
        Authority::create(CLUSTER, "other", 30).unwrap(),
    );
    let (mut one, two) = (
        authority.issue_node("n1", 1, 9, &[]).unwrap(),
        authority.issue_node("n2", 2, 9, &[]).unwrap(),
    );
    let foreign = other.issue_node("n1", 1, 9, &[]).unwrap();
    let error = load(&authority, &foreign).unwrap_err();
    assert!(
        matches!(error, CredentialError::NotSignedByCa { .. }),
        "{error:?}"
    );
    one.key_pem = two.key_pem;
    assert_eq!(
        load(&authority, &one).unwrap_err(),
        CredentialError::KeyMismatch
    );
    for (what, issued) in [
        (
            "certificate",
            IssuedCertificate {
                cert_pem: "nonsense".to_owned(),
                ..foreign.clone()
            },
        ),
        (
            "key",
            IssuedCertificate {
                key_pem: "nonsense".to_owned(),
                ..foreign.clone()
            },
        ),
    ] {
        let error = load(&other, &issued).unwrap_err();
        assert!(
            matches!(&error, CredentialError::Malformed { what: found, .. } if *found == what),
            "{error:?}"
        );
    }
    // The CA itself is nobody.
    let ca = IssuedCertificate {
        cert_pem: authority.ca_pem().to_owned(),
        key_pem: authority.key_pem().to_owned(),
    };
    assert!(load(&authority, &ca).is_err());
}

#[test]
fn authority_survives_its_files_and_refuses_what_it_must_not_sign() {
    let made = authority();
    let again = Authority::from_pem(CLUSTER, made.ca_pem(), made.key_pem()).unwrap();
    let issued = again.issue_admin("root", 9).unwrap();
    assert_eq!(load(&made, &issued).unwrap().identity().role(), "admin");
    for name in ["", "N1", "n 1", "n1.x", "-"] {
        assert!(
            matches!(again.issue_node(name, 1, 9, &[]), Err(PkiError::Name(_))),
            "{name}"
        );
    }
    assert!(matches!(
        again.issue_node("n1", 0, 9, &[]),
        Err(PkiError::Name(_))
    ));
    assert!(matches!(
        again.issue_client("a/b", 9),
        Err(PkiError::Name(_))
    ));
    // Key and certificate of two authorities.
    let mixed = Authority::from_pem(CLUSTER, made.ca_pem(), authority().key_pem()).unwrap();
    assert!(matches!(
        mixed.issue_client("ops", 9),
        Err(PkiError::Authority(_))
    ));
}

#[tokio::test]
async fn endpoint_needs_a_node_certificate_that_fits_its_hello_and_a_free_port() {
    let authority = authority();
    let bind = |credentials: &Credentials, hello, listen| {
        Endpoint::bind(
            options(listen),
            credentials.clone(),
            hello,
            Arc::new(AdmitAll),
        )
    };
    let own = node_credentials(&authority, 1);
    let client = credentials(&authority, &authority.issue_client("ops", 9).unwrap());
    let mut abroad = hello(1, 1);
    abroad.cluster = ClusterId(1);
    for (credentials, hello) in [(&own, hello(2, 1)), (&own, abroad), (&client, hello(1, 1))] {
        let error = bind(credentials, hello, any_port()).unwrap_err();
        assert!(matches!(error, BindError::Identity { .. }), "{error:?}");
    }
    let (endpoint, _events) = bind(&own, hello(1, 1), any_port()).unwrap();
    let error = bind(&own, hello(1, 1), endpoint.local_addr()).unwrap_err();
    let in_use = matches!(&error, BindError::Socket { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse);
    assert!(in_use, "{error:?}");
}
