//! `kvd join`: what it makes, that it can be interrupted, and that it makes a node only once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kvd::bundle::{Bundle, BundleMember};
use kvd::config::{Config, Sources};
use kvd::exit::{ExitCode, Failure};
use kvd::identity::{Identity, log_dir};
use kvd::join::join;
use raft_log::{Binding, OsFs, Wal};
use raft_net::pki::Authority;
use raft_net::{ClusterId, Credentials};

const CLUSTER: ClusterId = ClusterId(0xc0ff_ee42);

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn bundle(name: &str, id: u64) -> Bundle {
    let authority = Authority::create(CLUSTER, "prod", 30).unwrap();
    let issued = authority.issue_node(name, id, 30, &[]).unwrap();
    Bundle {
        cluster: CLUSTER,
        cluster_name: "prod".to_owned(),
        node: name.to_owned(),
        node_id: id,
        listen: "127.0.0.1:7400".parse().unwrap(),
        http: Some("127.0.0.1:7480".parse().unwrap()),
        members: vec![BundleMember {
            name: name.to_owned(),
            id,
            address: "127.0.0.1:7400".to_owned(),
        }],
        later: false,
        ca_pem: authority.ca_pem().to_owned(),
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn code(result: Result<kvd::join::Joined, kvd::join::JoinError>) -> ExitCode {
    Failure::from(result.unwrap_err()).code
}

#[test]
fn join_makes_a_directory_that_can_be_run() {
    let dir = tempdir();
    let joined = join(&bundle("n1", 7), Some(dir.path())).unwrap();
    let sources = Sources {
        file: Some(joined.places.config.clone()),
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap().config;
    assert_eq!(config.node.name, "n1");
    assert_eq!(
        config.node.data,
        dir.path().canonicalize().unwrap().join("data")
    );
    assert_eq!(config.cluster.members["n1"], "127.0.0.1:7400");
    assert_eq!(mode(&config.node.data), 0o700);
    assert_eq!(mode(&config.tls.dir), 0o700);
    assert_eq!(mode(&config.tls.dir.join("node.key")), 0o600);
    let credentials = Credentials::load(&config.tls.dir).unwrap();
    assert_eq!(credentials.identity().name(), "n1");
    let (mut identity, report) = Identity::open(&OsFs, &config.node.data, CLUSTER, 7).unwrap();
    assert_eq!(report, None);
    assert_eq!(identity.begin_incarnation(&OsFs).unwrap().0, 1);
    assert_eq!(identity.members().len(), 1);
    let binding = Binding {
        cluster: CLUSTER.0,
        node: 7,
    };
    let (wal, opened) = Wal::open(
        &OsFs,
        &log_dir(&config.node.data),
        binding,
        config.log.options(),
    )
    .unwrap();
    assert_eq!(opened.last_index, 0);
    wal.close().unwrap();
}

#[test]
fn a_second_join_into_the_same_directory_is_refused_and_changes_nothing() {
    let dir = tempdir();
    let first = bundle("n1", 7);
    join(&first, Some(dir.path())).unwrap();
    let config = fs::read(dir.path().join("kvd.toml")).unwrap();
    assert_eq!(code(join(&first, Some(dir.path()))), ExitCode::NoIdentity);
    assert_eq!(
        code(join(&bundle("n2", 8), Some(dir.path()))),
        ExitCode::NoIdentity
    );
    assert_eq!(fs::read(dir.path().join("kvd.toml")).unwrap(), config);
}

#[test]
fn an_interrupted_join_is_repeated_with_the_same_bundle_and_refused_with_another() {
    let dir = tempdir();
    let first = bundle("n1", 7);
    join(&first, Some(dir.path())).unwrap();
    // The identity is written last, so without it everything else may or may not be there.
    fs::remove_file(dir.path().join("data/identity")).unwrap();
    assert_eq!(
        code(join(&bundle("n2", 8), Some(dir.path()))),
        ExitCode::NoIdentity
    );
    join(&first, Some(dir.path())).unwrap();
    let data = dir.path().join("data");
    assert!(Identity::open(&OsFs, &data, CLUSTER, 7).is_ok());
}

#[test]
fn a_log_that_has_lived_is_not_taken_for_an_interrupted_join() {
    let dir = tempdir();
    let first = bundle("n1", 7);
    let joined = join(&first, Some(dir.path())).unwrap();
    let binding = Binding {
        cluster: CLUSTER.0,
        node: 7,
    };
    let log = log_dir(&joined.places.data);
    let (mut wal, _) = Wal::open(&OsFs, &log, binding, joined.config.log.options()).unwrap();
    wal.set_hard_state(3, Some(7)).unwrap();
    wal.close().unwrap();
    fs::remove_file(joined.places.data.join("identity")).unwrap();
    assert_eq!(code(join(&first, Some(dir.path()))), ExitCode::NoIdentity);
}

#[test]
fn the_certificate_decides_who_a_node_is() {
    let dir = tempdir();
    let mut lying = bundle("n1", 7);
    lying.node_id = 8;
    lying.members[0].id = 8;
    assert_eq!(
        code(join(&lying, Some(dir.path()))),
        ExitCode::Configuration
    );
    assert!(!dir.path().join("data").exists());
    let joined = join(&bundle("n1", 7), Some(dir.path())).unwrap();
    let data = &joined.places.data;
    for (cluster, node) in [(CLUSTER, 8), (ClusterId(1), 7)] {
        let refused = Identity::open(&OsFs, data, cluster, node).unwrap_err();
        assert_eq!(Failure::from(refused).code, ExitCode::NoIdentity);
    }
}

#[test]
fn an_empty_directory_and_one_that_others_can_read_are_refused() {
    let dir = tempdir();
    let missing = Identity::open(&OsFs, dir.path(), CLUSTER, 7).unwrap_err();
    assert_eq!(Failure::from(missing).code, ExitCode::NoIdentity);
    let joined = join(&bundle("n1", 7), Some(dir.path())).unwrap();
    fs::set_permissions(&joined.places.data, PermissionsExt::from_mode(0o755)).unwrap();
    let wide = Identity::open(&OsFs, &joined.places.data, CLUSTER, 7).unwrap_err();
    assert_eq!(Failure::from(wide).code, ExitCode::Permissions);
}

#[test]
fn a_bundle_that_asks_for_an_impossible_configuration_leaves_nothing_behind() {
    let dir = tempdir();
    let mut open = bundle("n1", 7);
    open.http = Some("0.0.0.0:7480".parse().unwrap());
    assert_eq!(code(join(&open, Some(dir.path()))), ExitCode::Configuration);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
