//! Clients that repeat themselves.

use super::*;

const APP: SessionRef = SessionRef::Named(0xa11ce);

fn incremented(value: i64) -> Vec<OpResult> {
    vec![OpResult::Incremented {
        value,
        version: value.unsigned_abs(),
    }]
}

/// Case 43: the reply of an increment is lost, the client retries through another node: executed once, same result.
#[test]
fn a_retry_after_a_lost_reply_is_executed_once() {
    let mut cluster = Cluster::new();
    let first = Write::new(APP, 1, increment("n", 1));
    let (session, result) = done(cluster.send(&first));
    assert_eq!(session, 1, "the id is the index of the registering entry");
    assert_eq!(result.results, incremented(1));
    // By name, as long as the client does not know the id; and by id.
    assert_eq!(done(cluster.send(&first)), (session, result.clone()));
    let by_id = Write {
        session: SessionRef::Id(session),
        ..first
    };
    assert_eq!(done(cluster.send(&by_id)), (session, result));
    assert_eq!(cluster.value("n").unwrap(), "1");

    // A compare-and-set that succeeded must not be told that it failed, although its comparison would fail now.
    let swap = Command::Txn(Txn {
        compare: vec![Compare {
            key: "n".into(),
            test: Test::Value(CmpOp::Equal, "1".into()),
        }],
        then: vec![put("n", "2")],
        otherwise: vec![],
    });
    let swap = Write::new(SessionRef::Id(session), 2, swap);
    let (_, result) = done(cluster.send(&swap));
    assert!(result.succeeded);
    assert_eq!(done(cluster.send(&swap)).1, result);
}

/// Case 43: after a change of leader the client resends everything unanswered, in order; the log holds a prefix of it.
#[test]
fn a_pipeline_is_resent_after_a_change_of_leader() {
    for committed in 0..=8 {
        let mut cluster = Cluster::new();
        let pipeline: Vec<Write> = (1..=8)
            .map(|sequence| Write::new(APP, sequence, increment("n", 1)))
            .collect();
        for write in &pipeline[..committed] {
            done(cluster.send(write));
        }
        for (write, value) in pipeline.iter().zip(1..) {
            assert_eq!(done(cluster.send(write)).1.results, incremented(value));
        }
        assert_eq!(cluster.value("n").unwrap(), "8");
    }
}

/// Case 44 (the store's part): the result of a command survives restart by log and by snapshot.
#[test]
fn results_survive_replay_and_snapshots() {
    let mut cluster = Cluster::new();
    let (session, first) = done(cluster.send(&Write::new(APP, 1, increment("n", 1))));
    cluster.restart();
    assert_eq!(
        done(cluster.send(&Write::new(APP, 1, increment("n", 1)))),
        (session, first)
    );
    let (_, second) =
        done(cluster.send(&Write::new(SessionRef::Id(session), 2, increment("n", 1))));
    cluster.restart();
    assert_eq!(
        done(cluster.send(&Write::new(APP, 2, increment("n", 1)))),
        (session, second)
    );
    assert_eq!(cluster.value("n").unwrap(), "2");
}

/// Case 45: a session expires by log time, at the same index everywhere; a retry then is not executed.
#[test]
fn an_idle_session_expires_by_log_time() {
    let mut cluster = Cluster::new();
    let idle_ms = cluster.limits.sessions.idle_ms;
    let (session, _) = done(cluster.send(&Write::new(APP, 1, increment("n", 1))));
    let retry = Write::new(SessionRef::Id(session), 1, increment("n", 1));

    cluster.now_ms = idle_ms;
    done(cluster.send(&retry));
    // Used just now, so it has all its time again.
    cluster.now_ms = 2 * idle_ms;
    cluster.run(put("other", "x"));
    assert_eq!(cluster.replicas[0].sessions().len(), 1);
    cluster.now_ms += 1;
    cluster.run(put("other", "x"));
    assert_eq!(cluster.replicas[0].sessions().len(), 0);
    assert_eq!(cluster.replicas[0].sessions().kept_bytes(), 0);

    assert_eq!(refused(cluster.send(&retry)), ApplyRefusal::SessionExpired);
    assert_eq!(cluster.value("n").unwrap(), "1");
}

#[test]
fn log_time_that_falls_is_taken_as_standing_still() {
    let mut cluster = Cluster::new();
    cluster.now_ms = 5000;
    cluster.run(put("k", "v"));
    cluster.now_ms = 10;
    done(cluster.send(&Write::new(APP, 1, put("k", "v"))));
    assert_eq!(cluster.replicas[0].log_time_ms(), 5000);
}

/// Case 45: the table is bounded. Who was used within the protected time is never driven out by newcomers.
#[test]
fn the_session_table_is_bounded_and_protects_recent_sessions() {
    let sessions = SessionLimits {
        count: 3,
        kept_at_least_ms: 1000,
        ..SessionLimits::default()
    };
    let mut cluster = Cluster::with_limits(StoreLimits {
        sessions,
        ..StoreLimits::default()
    });
    let mut ids = Vec::new();
    for name in 1..=3 {
        cluster.now_ms += 10;
        ids.push(done(cluster.send(&Write::new(SessionRef::Named(name), 1, put("k", "v")))).0);
    }
    // The oldest comes back, so the second is now the one unused for longest.
    cluster.now_ms += 10;
    done(cluster.send(&Write::new(SessionRef::Id(ids[0]), 2, put("k", "v"))));

    let newcomer = Write::new(SessionRef::Named(4), 1, put("k", "v"));
    assert_eq!(
        refused(cluster.send(&newcomer)),
        ApplyRefusal::SessionsFull { limit: 3 }
    );
    cluster.now_ms = 20 + 1000;
    done(cluster.send(&newcomer));
    assert_eq!(cluster.replicas[0].sessions().len(), 3);
    let gone = Write::new(SessionRef::Id(ids[1]), 2, put("k", "v"));
    assert_eq!(refused(cluster.send(&gone)), ApplyRefusal::SessionExpired);
    done(cluster.send(&Write::new(SessionRef::Id(ids[0]), 3, put("k", "v"))));
    done(cluster.send(&Write::new(SessionRef::Id(ids[2]), 2, put("k", "v"))));
}

#[test]
fn kept_results_are_bounded_in_number_and_bytes() {
    let sessions = SessionLimits {
        results: 2,
        ..SessionLimits::default()
    };
    let mut cluster = Cluster::with_limits(StoreLimits {
        sessions,
        ..StoreLimits::default()
    });
    for sequence in 1..=2 {
        done(cluster.send(&Write::new(APP, sequence, increment("n", 1))));
    }
    let third = Write::new(APP, 3, increment("n", 1));
    assert_eq!(
        refused(cluster.send(&third)),
        ApplyRefusal::SessionFull { limit: 2 }
    );
    assert_eq!(
        done(cluster.send(&third.done_below(2))).1.results,
        incremented(3)
    );

    let sessions = SessionLimits {
        result_bytes: 1000,
        total_result_bytes: 3000,
        ..SessionLimits::default()
    };
    let mut cluster = Cluster::with_limits(StoreLimits {
        sessions,
        ..StoreLimits::default()
    });
    cluster.run(put("large", vec![0; 2000]));
    let read = || Op::Range(RangeQuery::key("large"));
    for (name, sequence, limit) in [
        (1, 1, None),
        (1, 2, Some(1000)),
        (2, 1, None),
        (3, 1, Some(3000)),
    ] {
        let applied = cluster.send(&Write::new(SessionRef::Named(name), sequence, read()));
        match (applied, limit) {
            (Applied::Done { .. }, None) => {}
            (Applied::Refused(ApplyRefusal::SessionFull { limit }), Some(1000)) => {
                assert_eq!(limit, 1000)
            }
            (Applied::Refused(ApplyRefusal::SessionsFull { limit }), Some(3000)) => {
                assert_eq!(limit, 3000)
            }
            (applied, _) => panic!("session {name}, sequence {sequence}: {applied:?}"),
        }
    }
    // After the protected time the one unused for longest makes room.
    cluster.now_ms += cluster.limits.sessions.kept_at_least_ms;
    done(cluster.send(&Write::new(SessionRef::Named(3), 1, read())));
    assert_eq!(cluster.replicas[0].sessions().len(), 2);
}

/// Case 46: sequence 5 before 4 is refused and not executed; so is 4 with other content.
#[test]
fn a_sequence_out_of_order_or_reused_is_refused() {
    let mut cluster = Cluster::new();
    for sequence in 1..=3 {
        done(cluster.send(&Write::new(APP, sequence, increment("n", 1))));
    }
    let five = Write::new(APP, 5, increment("n", 100));
    assert_eq!(
        refused(cluster.send(&five)),
        ApplyRefusal::SequenceGap { expected: 4 }
    );
    assert_eq!(cluster.value("n").unwrap(), "3");
    done(cluster.send(&Write::new(APP, 4, increment("n", 1))));
    let other = Write::new(APP, 4, increment("n", 1000));
    assert_eq!(
        refused(cluster.send(&other)),
        ApplyRefusal::SequenceReused { sequence: 4 }
    );
    // The refusal did not use the sequence up.
    done(cluster.send(&five));
    assert_eq!(cluster.value("n").unwrap(), "104");
}

/// Case 46: a client gives a sequence up by raising `done_below`, and a late copy of it finds the door closed.
#[test]
fn a_sequence_that_was_given_up_is_never_executed_late() {
    let mut cluster = Cluster::new();
    let (session, _) = done(cluster.send(&Write::new(APP, 1, increment("n", 1))));
    let given_up = Write::new(APP, 2, increment("n", 10));
    done(cluster.send(&Write::new(APP, 3, increment("n", 100)).done_below(3)));
    for late in [given_up, Write::new(APP, 1, increment("n", 1))] {
        assert_eq!(
            refused(cluster.send(&late)),
            ApplyRefusal::SequenceDone { done_below: 3 }
        );
    }
    let again = Write::new(SessionRef::Id(session), 3, increment("n", 100)).done_below(3);
    done(cluster.send(&again));
    assert_eq!(cluster.value("n").unwrap(), "101");
}

#[test]
fn a_refused_command_leaves_its_sequence_free() {
    let command = CommandLimits {
        value_bytes: 4,
        ..CommandLimits::default()
    };
    let mut cluster = Cluster::with_limits(StoreLimits {
        command,
        ..StoreLimits::default()
    });
    let large = Write::new(APP, 1, put("k", "too large"));
    assert!(matches!(
        refused(cluster.send(&large)),
        ApplyRefusal::Limit(_)
    ));
    done(cluster.send(&Write::new(APP, 1, put("k", "fits"))));
    // But a command that was undone has a result, and that is kept.
    let (_, undone) = done(cluster.send(&Write::new(APP, 2, increment("k", 1))));
    assert_eq!(undone.results, [OpResult::NotANumber]);
    done(cluster.send(&Write::new(APP, 3, put("k", "7"))));
    assert_eq!(
        done(cluster.send(&Write::new(APP, 2, increment("k", 1)))).1,
        undone
    );
}

#[test]
fn nonsense_in_sequence_numbers_is_refused() {
    let mut cluster = Cluster::new();
    for (session, sequence, done_below) in [
        (APP, 0, 0),
        (APP, 1, 2),
        (SessionRef::None, 1, 0),
        (SessionRef::None, 0, 1),
        (APP, 0, 5),
    ] {
        let write = Write::new(session, sequence, put("k", "v")).done_below(done_below);
        assert_eq!(
            refused(cluster.send(&write)),
            ApplyRefusal::Malformed,
            "{session:?} {sequence} {done_below}"
        );
    }
    let unnumbered = Write::new(SessionRef::None, 0, Command::KeepAlive);
    assert_eq!(refused(cluster.send(&unnumbered)), ApplyRefusal::Malformed);

    // Even the highest numbers do no harm; after the last one nothing can follow.
    let last = Write::new(APP, u64::MAX - 1, put("k", "v")).done_below(u64::MAX - 1);
    done(cluster.send(&last));
    done(cluster.send(&last));
    let beyond = Write::new(APP, u64::MAX, put("k", "v")).done_below(u64::MAX);
    assert_eq!(refused(cluster.send(&beyond)), ApplyRefusal::Malformed);
    done(cluster.send(&Write::new(APP, 0, Command::KeepAlive).done_below(u64::MAX)));
    assert_eq!(
        refused(cluster.send(&last)),
        ApplyRefusal::SequenceDone {
            done_below: u64::MAX
        }
    );
}

#[test]
fn a_session_belongs_to_the_principal_that_registered_it() {
    let mut cluster = Cluster::new();
    let (session, _) = done(cluster.send(&Write::new(APP, 1, put("secret", "x"))));
    let guess = Write::new(SessionRef::Id(session), 1, put("secret", "x")).by("eve");
    assert_eq!(refused(cluster.send(&guess)), ApplyRefusal::SessionExpired);
    // The same name chosen by another user is another session.
    let other = Write::new(APP, 1, put("k", "v")).by("bob");
    assert_ne!(done(cluster.send(&other)).0, session);
    // So is the same name under another role.
    let mut admin = Write::new(APP, 1, put("k", "v"));
    admin.principal.role = Role::Admin;
    done(cluster.send(&admin));
    assert_eq!(cluster.replicas[0].sessions().len(), 3);
    let mut guess = Write::new(SessionRef::Id(session), 1, put("secret", "x"));
    guess.principal.role = Role::Http;
    assert_eq!(refused(cluster.send(&guess)), ApplyRefusal::SessionExpired);
}

#[test]
fn keep_alive_opens_finds_and_keeps_a_session_without_using_a_sequence() {
    let mut cluster = Cluster::new();
    let idle_ms = cluster.limits.sessions.idle_ms;
    let open = Write::new(APP, 0, Command::KeepAlive);
    let (session, result) = done(cluster.send(&open));
    assert_eq!(
        result,
        CommandResult {
            revision: 0,
            succeeded: true,
            results: vec![]
        }
    );
    assert_eq!(done(cluster.send(&open)).0, session);
    let keep = Write::new(SessionRef::Id(session), 0, Command::KeepAlive);
    for _ in 0..3 {
        cluster.now_ms += idle_ms;
        done(cluster.send(&keep));
    }
    done(cluster.send(&Write::new(SessionRef::Id(session), 1, put("k", "v"))));
    cluster.now_ms += idle_ms + 1;
    assert_eq!(refused(cluster.send(&keep)), ApplyRefusal::SessionExpired);
}

#[test]
fn a_closed_session_runs_nothing_more_not_even_for_a_late_copy_by_name() {
    let mut cluster = Cluster::new();
    let write = Write::new(APP, 1, increment("n", 1));
    done(cluster.send(&write));
    let close = Write::new(APP, 2, Command::CloseSession).done_below(2);
    let closed = done(cluster.send(&close));
    assert_eq!(done(cluster.send(&close)), closed);
    assert_eq!(
        refused(cluster.send(&write)),
        ApplyRefusal::SequenceDone { done_below: 2 }
    );
    assert_eq!(
        refused(cluster.send(&Write::new(APP, 3, increment("n", 1)))),
        ApplyRefusal::SessionExpired
    );
    cluster.restart();
    assert_eq!(done(cluster.send(&close)), closed);
    assert_eq!(
        refused(cluster.send(&Write::new(APP, 3, increment("n", 1)))),
        ApplyRefusal::SessionExpired
    );
    assert_eq!(cluster.value("n").unwrap(), "1");
}
