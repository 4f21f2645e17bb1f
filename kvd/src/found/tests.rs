use super::*;

#[test]
fn nodes_listen_everywhere_unless_they_are_reached_over_loopback() {
    for (address, full, listen) in [
        ("10.0.0.1:7400", "10.0.0.1:7400", "0.0.0.0:7400"),
        ("127.0.0.2:7401", "127.0.0.2:7401", "127.0.0.2:7401"),
        ("localhost:7401", "localhost:7401", "127.0.0.1:7401"),
        ("[::1]:7402", "[::1]:7402", "[::1]:7402"),
        ("db.example.org", "db.example.org:7400", "0.0.0.0:7400"),
        ("fd00::5", "[fd00::5]:7400", "[::]:7400"),
    ] {
        let node = NewNode::new("n1", address).unwrap();
        assert_eq!(node.address, full);
        assert_eq!(node.listen.to_string(), listen);
    }
}

#[test]
fn ids_are_never_zero_and_never_the_same() {
    let node = || NewNode::new("n1", "h:1").unwrap().id;
    let (one, two) = (node(), node());
    assert_ne!(one, two);
    assert!(one != 0 && two != 0);
}

#[test]
fn slips_are_refused() {
    assert!(matches!(
        NewNode::new("N1", "h:1"),
        Err(FoundError::Name { .. })
    ));
    assert!(matches!(
        NewNode::new("n1", "h:0"),
        Err(FoundError::Address { .. })
    ));
    for twins in [
        [("n1", "h:1"), ("n1", "h:2")],
        [("n1", "h:1"), ("n2", "h:1")],
    ] {
        let error = Founding::new("prod", twins).unwrap_err();
        assert!(matches!(error, FoundError::Repeated { .. }), "{error}");
    }
}

#[test]
fn what_is_written_can_be_used_and_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("prod");
    let founding = Founding::on_loopback("prod", 3).unwrap();
    let bundles = founding.write(&dir).unwrap();
    assert_eq!(bundles.len(), 3);
    for bundle in &bundles {
        let read = Bundle::read_file(&bundle_file(&dir, &bundle.node)).unwrap();
        assert_eq!(read, *bundle);
        assert_eq!(read.members.len(), 3);
    }
    let admin = load_admin(&dir).unwrap();
    assert_eq!(admin.identity().cluster(), founding.cluster());
    let authority = load_authority(&dir, founding.cluster()).unwrap();
    let later = NewNode::new("n4", "127.0.0.1:1").unwrap();
    let members = [later.member()];
    let bundle = later.bundle(&authority, "prod", members, true, 1).unwrap();
    assert!(bundle.later && bundle.encode().is_ok());
    assert!(matches!(
        founding.write(&dir),
        Err(FoundError::NotEmpty { .. })
    ));
}
