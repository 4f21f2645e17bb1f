//! Revisions, operations, transactions and limits.

use super::*;

fn numbers(cluster: &Cluster, key: &'static str) -> Option<(u64, u64, u64)> {
    let result = cluster.replicas[0].query(&RangeQuery::key(key));
    result
        .items
        .first()
        .map(|item| (item.create_revision, item.mod_revision, item.version))
}

fn keys(result: &RangeResult) -> Vec<&[u8]> {
    result.items.iter().map(|item| &item.key[..]).collect()
}

#[test]
fn each_write_that_changes_something_has_the_next_revision() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.run(put("a", "1")).revision, 1);
    assert_eq!(cluster.run(put("b", "1")).revision, 2);
    assert_eq!(cluster.run(put("a", "2")).revision, 3);
    assert_eq!(numbers(&cluster, "a"), Some((1, 3, 2)));
    assert_eq!(numbers(&cluster, "b"), Some((2, 2, 1)));

    // Nothing there to delete, only reading, nothing to do: no revision.
    assert_eq!(cluster.run(delete(KeyRange::Key("c".into()))).revision, 3);
    assert_eq!(
        cluster
            .run(Op::Range(RangeQuery::new(KeyRange::All)))
            .revision,
        3
    );
    assert_eq!(cluster.run(Command::Txn(Txn::default())).revision, 3);

    assert_eq!(cluster.run(delete(KeyRange::Key("a".into()))).revision, 4);
    assert_eq!(cluster.value("a"), None);
    assert_eq!(cluster.run(put("a", "3")).revision, 5);
    assert_eq!(numbers(&cluster, "a"), Some((5, 5, 1)));
}

#[test]
fn put_answers_version_and_previous() {
    let mut cluster = Cluster::new();
    let put = |value: &'static str| Op::Put {
        key: "k".into(),
        value: value.into(),
        want_previous: true,
    };
    assert_eq!(
        cluster.run(put("1")).results,
        [OpResult::Put {
            version: 1,
            previous: None
        }]
    );
    let result = cluster.run(put("2"));
    let [
        OpResult::Put {
            version: 2,
            previous: Some(previous),
        },
    ] = &result.results[..]
    else {
        panic!("{result:?}")
    };
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"1"[..], 1));
}

#[test]
fn delete_takes_a_key_a_prefix_a_range_or_all() {
    let mut cluster = Cluster::new();
    let deleted = |cluster: &mut Cluster, range| {
        let result = cluster.run(Op::Delete {
            range,
            want_previous: true,
        });
        let [OpResult::Deleted { count, previous }] = &result.results[..] else {
            panic!("{result:?}")
        };
        assert_eq!(previous.len() as u64, *count);
        previous
            .iter()
            .map(|item| String::from_utf8(item.key.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    for key in ["a", "b/1", "b/2", "b0", "c", "d"] {
        cluster.run(put(key, key));
    }
    assert_eq!(
        deleted(&mut cluster, KeyRange::Prefix("b/".into())),
        ["b/1", "b/2"]
    );
    assert_eq!(
        deleted(
            &mut cluster,
            KeyRange::Between {
                start: "b".into(),
                end: "d".into()
            }
        ),
        ["b0", "c"]
    );
    assert!(
        deleted(
            &mut cluster,
            KeyRange::Between {
                start: "d".into(),
                end: "a".into()
            }
        )
        .is_empty()
    );
    assert_eq!(deleted(&mut cluster, KeyRange::Key("a".into())), ["a"]);
    assert_eq!(deleted(&mut cluster, KeyRange::All), ["d"]);
    assert_eq!(cluster.replicas[0].key_count(), 0);
}

#[test]
fn a_prefix_of_high_bytes_ends_where_it_should() {
    let mut cluster = Cluster::new();
    for key in [
        &b"a\xfe"[..],
        b"a\xff",
        b"a\xff\xff",
        b"b",
        b"\xff",
        b"\xff\xff",
    ] {
        let key = Bytes::copy_from_slice(key);
        cluster.run(Op::Put {
            key,
            value: Bytes::new(),
            want_previous: false,
        });
    }
    let found = |prefix: &'static [u8]| {
        let query = RangeQuery::new(KeyRange::Prefix(prefix.into()));
        let result = cluster.replicas[0].query(&query);
        let counted = cluster.replicas[0].query(&RangeQuery {
            count_only: true,
            ..query
        });
        assert_eq!(counted.count, result.count);
        result.count
    };
    assert_eq!(found(b"a\xff"), 2);
    assert_eq!(found(b"a"), 3);
    assert_eq!(found(b"\xff"), 2);
    assert_eq!(found(b""), 6);
}

#[test]
fn a_range_comes_in_pages() {
    let mut cluster = Cluster::new();
    for key in ["a", "b", "c", "d", "e"] {
        cluster.run(put(key, "value"));
    }
    let store = &cluster.replicas[0];
    let mut query = RangeQuery {
        limit: 2,
        ..RangeQuery::new(KeyRange::All)
    };
    let mut pages = Vec::new();
    loop {
        let page = store.query(&query);
        assert_eq!(page.count as usize, page.items.len());
        query.after = page.items.last().map(|item| item.key.clone());
        pages.push(keys(&page).concat());
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [&b"ab"[..], b"cd", b"e"]);

    let bare = store.query(&RangeQuery {
        keys_only: true,
        ..RangeQuery::new(KeyRange::All)
    });
    assert!(
        bare.items
            .iter()
            .all(|item| item.value.is_empty() && item.version == 1)
    );
    let after = Some("b".into());
    let counted = store.query(&RangeQuery {
        count_only: true,
        after,
        ..RangeQuery::new(KeyRange::All)
    });
    assert_eq!(
        (counted.count, counted.items.len(), counted.more),
        (3, 0, false)
    );
}

#[test]
fn an_answer_is_bounded_but_its_first_item_always_fits() {
    let limits = StoreLimits {
        answer_bytes: 1000,
        answer_items: 3,
        ..StoreLimits::default()
    };
    let mut cluster = Cluster::with_limits(limits);
    cluster.run(put("a", vec![0; 5000]));
    for key in ["b", "c", "d", "e", "f"] {
        cluster.run(put(key, "small"));
    }
    let page = cluster.replicas[0].query(&RangeQuery::new(KeyRange::All));
    assert_eq!((keys(&page), page.more), (vec![&b"a"[..]], true));
    let page = cluster.replicas[0].query(&RangeQuery {
        after: Some("a".into()),
        ..RangeQuery::new(KeyRange::All)
    });
    assert_eq!(
        (keys(&page), page.more),
        (vec![&b"b"[..], b"c", b"d"], true)
    );

    // What was deleted cannot be asked for again, so a cut answer would lose it: refused instead.
    let result = cluster.run(Op::Delete {
        range: KeyRange::All,
        want_previous: true,
    });
    assert_eq!(
        result.results,
        [OpResult::AnswerTooLarge { limit_bytes: 1000 }]
    );
    assert!(!result.succeeded);
    assert_eq!(cluster.replicas[0].key_count(), 6);
}

#[test]
fn increment_counts_from_zero_and_refuses_what_is_no_number() {
    let mut cluster = Cluster::new();
    assert_eq!(
        cluster.run(increment("n", 5)).results,
        [OpResult::Incremented {
            value: 5,
            version: 1
        }]
    );
    assert_eq!(
        cluster.run(increment("n", -7)).results,
        [OpResult::Incremented {
            value: -2,
            version: 2
        }]
    );
    assert_eq!(cluster.value("n").unwrap(), "-2");

    let revision = cluster.replicas[0].revision() + 1;
    cluster.run(put("full", i64::MAX.to_string()));
    assert_eq!(
        cluster.run(increment("full", 1)).results,
        [OpResult::Overflow]
    );
    for text in [
        "",
        " 1",
        "1 ",
        "1\n",
        "0x10",
        "1.0",
        "9223372036854775808",
        "one",
        "\u{661}",
    ] {
        cluster.run(delete(KeyRange::Key("text".into())));
        cluster.run(put("text", text));
        let before = cluster.replicas[0].revision();
        let result = cluster.run(increment("text", 1));
        assert_eq!(result.results, [OpResult::NotANumber], "{text:?}");
        assert!(!result.succeeded);
        assert_eq!(cluster.replicas[0].revision(), before);
        assert_eq!(cluster.value("text").unwrap(), text);
    }
    assert_eq!(numbers(&cluster, "full"), Some((revision, revision, 1)));
}

#[test]
fn a_transaction_runs_one_branch_under_one_revision() {
    let mut cluster = Cluster::new();
    cluster.run(put("a", "1"));
    let txn = |test: Test| {
        Command::Txn(Txn {
            compare: vec![Compare {
                key: "a".into(),
                test,
            }],
            then: vec![
                put("a", "2"),
                put("b", "2"),
                Op::Range(RangeQuery::key("a")),
            ],
            otherwise: vec![Op::Range(RangeQuery::key("a"))],
        })
    };
    let result = cluster.run(txn(Test::Value(CmpOp::Equal, "1".into())));
    assert!(result.succeeded);
    assert_eq!(result.revision, 2);
    assert_eq!(numbers(&cluster, "a"), Some((1, 2, 2)));
    assert_eq!(numbers(&cluster, "b"), Some((2, 2, 1)));
    let [_, _, OpResult::Range(seen)] = &result.results[..] else {
        panic!("{result:?}")
    };
    assert_eq!((&seen.items[0].value[..], seen.revision), (&b"2"[..], 2));

    let result = cluster.run(txn(Test::Value(CmpOp::Equal, "1".into())));
    assert!(!result.succeeded);
    assert_eq!((result.revision, result.results.len()), (2, 1));
}

#[test]
fn comparisons_of_present_and_absent_keys() {
    let mut cluster = Cluster::new();
    cluster.run(put("other", "x"));
    cluster.run(put("k", "5"));
    cluster.run(put("k", "6"));
    // create 2, mod 3, version 2
    let absent = |op| Test::Value(op, "".into());
    for (key, test, holds) in [
        ("k", Test::Present, true),
        ("k", Test::Absent, false),
        ("k", Test::Version(CmpOp::Equal, 2), true),
        ("k", Test::Version(CmpOp::Less, 2), false),
        ("k", Test::CreateRevision(CmpOp::Greater, 1), true),
        ("k", Test::ModRevision(CmpOp::NotEqual, 3), false),
        ("k", Test::Value(CmpOp::Equal, "6".into()), true),
        ("k", Test::Value(CmpOp::Less, "60".into()), true),
        ("none", Test::Absent, true),
        ("none", Test::Present, false),
        ("none", Test::Version(CmpOp::Equal, 0), true),
        ("none", Test::ModRevision(CmpOp::Less, 1), true),
        ("none", absent(CmpOp::Equal), false),
        ("none", absent(CmpOp::NotEqual), false),
    ] {
        let compare = vec![Compare {
            key: key.into(),
            test: test.clone(),
        }];
        let result = cluster.run(Command::Txn(Txn {
            compare,
            ..Txn::default()
        }));
        assert_eq!(result.succeeded, holds, "{key} {test:?}");
    }
}

#[test]
fn a_step_that_fails_undoes_the_whole_transaction() {
    let mut cluster = Cluster::new();
    for (key, value) in [("a", "1"), ("b", "2"), ("text", "x")] {
        cluster.run(put(key, value));
    }
    let before = snapshot(&cluster.replicas[0]);
    let result = cluster.run(Command::Txn(Txn {
        then: vec![
            put("a", "changed"),
            put("a", "again"),
            put("new", "1"),
            increment("a-number", 4),
            delete(KeyRange::All),
            put("b", "back"),
            put("text", "y"),
            increment("text", 1),
            put("never", "reached"),
        ],
        ..Txn::default()
    }));
    assert_eq!(
        result,
        CommandResult {
            revision: 3,
            succeeded: false,
            results: vec![OpResult::NotANumber]
        }
    );
    let store = &cluster.replicas[0];
    assert_eq!(store.key_count(), 3);
    let (_, untouched) = SnapshotReader::read(cluster.limits, &before).unwrap();
    assert_eq!(
        store.query(&RangeQuery::new(KeyRange::All)),
        untouched.query(&RangeQuery::new(KeyRange::All))
    );
}

/// Case 61: key 0 / max / max+1, value max / max+1, batch max / max+1.
#[test]
fn limits_are_checked_when_a_command_is_applied() {
    let command = CommandLimits {
        key_bytes: 8,
        value_bytes: 16,
        txn_ops: 2,
    };
    let mut cluster = Cluster::with_limits(StoreLimits {
        command,
        ..StoreLimits::default()
    });
    let sized = |key: usize, value: usize| {
        let (key, value) = (vec![b'k'; key].into(), vec![b'v'; value].into());
        Op::Put {
            key,
            value,
            want_previous: false,
        }
    };
    let compare = |key: usize, value: usize| Compare {
        key: vec![b'k'; key].into(),
        test: Test::Value(CmpOp::Equal, vec![b'v'; value].into()),
    };
    let then = |ops: Vec<Op>| {
        Command::Txn(Txn {
            then: ops,
            ..Txn::default()
        })
    };
    let long: Bytes = vec![b'k'; 9].into();
    let accepted: [Command; 4] = [
        sized(1, 0).into(),
        sized(8, 16).into(),
        then(vec![sized(8, 16); 2]),
        Txn {
            compare: vec![compare(8, 16); 2],
            ..Txn::default()
        }
        .into(),
    ];
    let key = |size| LimitError::TooLarge {
        what: "key",
        size,
        limit: 8,
    };
    let value = LimitError::TooLarge {
        what: "value",
        size: 17,
        limit: 16,
    };
    let steps = LimitError::TooLarge {
        what: "transaction",
        size: 3,
        limit: 2,
    };
    let rejected: [(Command, LimitError); 13] = [
        (sized(0, 1).into(), LimitError::EmptyKey),
        (sized(9, 1).into(), key(9)),
        (sized(1, 17).into(), value),
        (
            Op::Increment {
                key: long.clone(),
                by: 1,
            }
            .into(),
            key(9),
        ),
        (
            delete(KeyRange::Key(Bytes::new())).into(),
            LimitError::EmptyKey,
        ),
        (delete(KeyRange::Prefix(long.clone())).into(), key(9)),
        (
            delete(KeyRange::Between {
                start: "a".into(),
                end: long.clone(),
            })
            .into(),
            key(9),
        ),
        (
            Op::Range(RangeQuery {
                after: Some(long),
                ..RangeQuery::key("a")
            })
            .into(),
            key(9),
        ),
        (then(vec![sized(1, 1); 3]), steps),
        (then(vec![sized(1, 1), sized(1, 17)]), value),
        (
            Txn {
                otherwise: vec![sized(1, 1); 3],
                ..Txn::default()
            }
            .into(),
            steps,
        ),
        (
            Txn {
                compare: vec![compare(1, 1); 3],
                ..Txn::default()
            }
            .into(),
            steps,
        ),
        (
            Txn {
                compare: vec![compare(1, 17)],
                ..Txn::default()
            }
            .into(),
            value,
        ),
    ];
    for command in accepted {
        cluster.run(command);
    }
    let revision = cluster.replicas[0].revision();
    for (command, error) in rejected {
        let write = Write::new(SessionRef::None, 0, command);
        assert_eq!(refused(cluster.send(&write)), ApplyRefusal::Limit(error));
    }
    assert_eq!(cluster.replicas[0].revision(), revision);
}

#[test]
fn what_is_no_command_has_no_effect_and_still_counts_as_applied() {
    let mut cluster = Cluster::new();
    assert_eq!(
        refused(cluster.commit(Bytes::new())),
        ApplyRefusal::Malformed
    );
    assert_eq!(
        refused(cluster.commit(Bytes::from_static(b"\x01garbage"))),
        ApplyRefusal::Malformed
    );

    let mut payload = Write::new(SessionRef::None, 0, put("k", "v"))
        .payload(0)
        .to_vec();
    *payload.last_mut().unwrap() ^= 1;
    let refusal = refused(cluster.commit(payload.clone().into()));
    assert!(
        matches!(refusal, ApplyRefusal::CommandCrc { .. }),
        "{refusal}"
    );

    payload[0] = 9;
    let refusal = refused(cluster.commit(payload.into()));
    assert_eq!(refusal, ApplyRefusal::NewerVersion { found: 9, known: 1 });
    assert!(refusal.must_stop());
    assert_eq!(cluster.replicas[0].applied_index(), 4);
    assert_eq!(cluster.replicas[0].key_count(), 0);
}

#[test]
#[should_panic(expected = "entries are applied one after the other")]
fn an_entry_out_of_order_is_our_own_mistake() {
    Store::new(StoreLimits::default()).skip(2);
}
