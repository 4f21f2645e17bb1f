//! The client against scripted nodes over real frames. Time is simulated: a test never waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raft_net::{FrameReceiver, FrameSender};

use super::dial::{Pending, Target};
use super::link::Link;
use super::*;
use crate::kv::command::{KeyRange, Op, OpResult};
use crate::kv::envelope::SessionRef;
use crate::wire::client::{Member, MemberAddress, RequestFrame, ResponseFrame};
use crate::wire::status::{NodeRole, NodeStatus};

mod nodes;

use nodes::*;

#[tokio::test(start_paused = true)]
async fn many_writes_share_one_stream_and_one_session() {
    let (client, seen) = nodes(&["n1"], |_, request, _| done(request)).client(&["n1"], |_| {});
    for sequence in 1..=50 {
        assert_eq!(client.write(put("a")).await.unwrap().revision, sequence);
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.dialled, ["n1"]);
    assert!(matches!(seen.writes[0], (_, SessionRef::Named(_), 1, 1)));
    assert!(
        seen.writes[1..]
            .iter()
            .all(|(_, session, ..)| *session == SessionRef::Id(100))
    );
    assert_eq!(seen.writes[49].3, 50, "everything answered is done with");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_reply_is_lost_is_repeated_elsewhere_with_the_same_number() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n1" => Act::HangUp,
        _ => done(request),
    };
    let (client, seen) = nodes(&["n1", "n2"], script).client(&["n1", "n2"], |_| {});
    assert_eq!(client.write(put("a")).await.unwrap().revision, 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.writes[0].1, seen.writes[1].1);
    assert_eq!((seen.writes[0].2, seen.writes[1].2), (1, 1));
    assert_eq!(seen.writes[1].0, "n2");
}

#[tokio::test(start_paused = true)]
async fn pipelined_writes_are_all_sent_again_in_order_after_the_link_breaks() {
    let script = |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        1..10 => Act::Nothing,
        10 => Act::HangUp,
        _ => done(request),
    };
    let (client, seen) = nodes(&["n1"], script).client(&["n1"], |_| {});
    let mut pending = Vec::new();
    for _ in 0..10 {
        pending.push(client.submit(put("a")).await.unwrap());
    }
    for (at, write) in pending.into_iter().enumerate() {
        assert_eq!(write.result().await.unwrap().revision, at as u64 + 1);
    }
    let seen = seen.lock().unwrap();
    let order: Vec<u64> = seen
        .writes
        .iter()
        .map(|(_, _, sequence, _)| *sequence)
        .collect();
    assert_eq!(order, (1..=10).chain(1..=10).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn answers_in_any_order_reach_their_requests() {
    let held = Mutex::new(Vec::new());
    let script = move |_: &str, request: &RequestFrame, _: &mut Seen| {
        let mut held = held.lock().unwrap();
        let Request::Write { sequence, .. } = request.body else {
            return Act::Nothing;
        };
        held.push((request.id, written(sequence)));
        match held.len() {
            3 => Act::Say(held.drain(..).rev().collect()),
            _ => Act::Nothing,
        }
    };
    let (client, _) = nodes(&["n1"], script).client(&["n1"], |_| {});
    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(client.submit(put("a")).await.unwrap());
    }
    for (at, write) in pending.into_iter().enumerate() {
        assert_eq!(write.result().await.unwrap().revision, at as u64 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_definite_refusal_ends_the_call_and_its_number_is_declared_done() {
    let script = |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        1 => refuse(Refusal::TooLarge {
            what: "value".to_owned(),
            bytes: 9,
            limit: 8,
        }),
        _ => done(request),
    };
    let (client, seen) = nodes(&["n1"], script).client(&["n1"], |_| {});
    let error = client.write(put("a")).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused(Refusal::TooLarge { .. })),
        "{error:?}"
    );
    assert_eq!(client.write(put("b")).await.unwrap().revision, 2);
    let (_, _, sequence, done_below) = seen.lock().unwrap().writes[1].clone();
    assert_eq!((sequence, done_below), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_definite_refusal_after_an_unanswered_attempt_is_unknown() {
    let script = |_: &str, _: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        1 => Act::HangUp,
        _ => refuse(Refusal::NoSpace),
    };
    let (client, _) = nodes(&["n1"], script).client(&["n1"], |_| {});
    let error = client.write(put("a")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
}

/// All members are replaced while the client stays at one of them, and that one leaves last: it says where the others are.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_left_is_asked_for_the_members() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n4" => done(request),
        _ => refuse(Refusal::NotLeader { leader: None }),
    };
    let mut nodes = nodes(&["n1", "n2"], script).without("n2", Found::ConnectionRefused);
    nodes.later = Some(vec!["n4".to_owned()]);
    let (client, seen) = nodes.client(&["n1", "n2"], |_| {});
    assert_eq!(client.write(put("a")).await.unwrap().revision, 1);
    assert_eq!(seen.lock().unwrap().dialled, ["n1", "n4"]);
}

/// The same, and the last one dies without a word.
#[tokio::test(start_paused = true)]
async fn a_client_at_work_asks_for_the_members_now_and_then() {
    let script = |name: &str, request: &RequestFrame, seen: &mut Seen| match name {
        "n1" if seen.writes.len() == 10 => Act::HangUp,
        _ => done(request),
    };
    let mut nodes = nodes(&["n1", "n2"], script).without("n2", Found::ConnectionRefused);
    nodes.later = Some(vec!["n4".to_owned()]);
    let (client, seen) = nodes.client(&["n1", "n2"], |_| {});
    for _ in 0..10 {
        client.write(put("a")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(seen.lock().unwrap().dialled, ["n1", "n4"]);
}

/// Time stands still for a client that does not rest, and the second call would never come to its end.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_given_up_rests() {
    let nodes = nodes(&[], |_, request, _| done(request));
    let silent = ["n1", "n2", "n3"];
    let nodes = silent
        .into_iter()
        .fold(nodes, |nodes, name| nodes.without(name, Found::TimedOut));
    let (client, seen) = nodes.client(&silent, |options| {
        options.timeout = Duration::from_millis(100);
    });
    for _ in 0..2 {
        client.write(put("a")).await.unwrap_err();
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(seen.lock().unwrap().dialled.starts_with(&["n1".to_owned()]));
}

/// Each address that refuses at once costs no time of the next one.
#[tokio::test(start_paused = true)]
async fn the_next_address_is_dialled_as_soon_as_one_has_refused() {
    let nodes = nodes(&["n1", "n2", "n3"], |_, request, _| done(request))
        .without("n1", Found::ConnectionRefused)
        .without("n2", Found::ConnectionRefused);
    let (client, seen) = nodes.client(&["n1", "n2", "n3"], |_| {});
    let began = tokio::time::Instant::now();
    client.write(put("a")).await.unwrap();
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "on a clock that only waiting moves"
    );
    assert_eq!(seen.lock().unwrap().dialled, ["n1", "n2", "n3"]);
}

#[tokio::test(start_paused = true)]
async fn the_client_goes_to_the_leader_that_a_node_names() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n3" => done(request),
        _ => refuse(Refusal::NotLeader {
            leader: Some(MemberAddress {
                name: "n3".to_owned(),
                id: 3,
                address: "n3".to_owned(),
            }),
        }),
    };
    let (client, seen) = nodes(&["n1", "n2", "n3"], script).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
    assert_eq!(seen.lock().unwrap().dialled, ["n1", "n3"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_leader_is_left_for_another() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n1" => refuse(no_leader()),
        _ => done(request),
    };
    let (client, _) = nodes(&["n1", "n2"], script).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_being_left_holds_nothing_up_with_answers_that_it_owes() {
    let script = |name: &str, request: &RequestFrame, seen: &mut Seen| match name {
        "n1" if seen.writes.len() == 1 => refuse(no_leader()),
        "n1" => Act::Nothing,
        _ => done(request),
    };
    let (client, _) = nodes(&["n1", "n2"], script).client(&["n1"], |_| {});
    let began = tokio::time::Instant::now();
    let first = client.submit(put("a")).await.unwrap();
    let second = client.submit(put("b")).await.unwrap();
    first.result().await.unwrap();
    second.result().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_left_for_another() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n1" => Act::Nothing,
        _ => done(request),
    };
    let (client, _) = nodes(&["n1", "n2"], script).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_refusals_until_the_deadline_mean_that_nothing_was_written() {
    let nodes = nodes(&["n1", "n2", "n3"], |_, _, _| refuse(no_leader()));
    let nodes = nodes
        .without("n2", Found::ConnectionRefused)
        .without("n3", Found::TimedOut);
    let (client, _) = nodes.client(&["n1"], |_| {});
    let began = tokio::time::Instant::now();
    let error = client.write(put("a")).await.unwrap_err();
    assert!(
        began.elapsed() <= Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let ClientError::NoQuorum { evidence, .. } = error else {
        panic!("{error:?}")
    };
    let findings: Vec<String> = evidence.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        [
            "n1 answered (follower, term 7)",
            "n2 connection refused",
            "n3 timed out"
        ]
    );
    assert_eq!((evidence.quorum(), evidence.answered()), (Some(2), 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_answer_at_the_deadline_is_unknown_but_a_read_is_not() {
    let (client, _) = nodes(&["n1"], |_, _, _| Act::Nothing).client(&["n1"], |_| {});
    let error = client.write(put("a")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    let query = RangeQuery::new(KeyRange::All);
    let error = client
        .read(query, Consistency::Linearizable)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NoQuorum { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_node_lost_sight_of_is_asked_for_again() {
    let script = |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        1 => refuse(Refusal::OutcomeUnknown {
            why: "leader lost".to_owned(),
        }),
        _ => done(request),
    };
    let (client, seen) = nodes(&["n1"], script).client(&["n1"], |_| {});
    assert_eq!(client.write(put("a")).await.unwrap().revision, 1);
    assert_eq!(seen.lock().unwrap().writes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_unreachable_with_a_finding_for_each_endpoint() {
    let nodes = nodes(&["n1", "n2"], |_, _, _| Act::Nothing);
    let nodes = nodes
        .without("n1", Found::ConnectionRefused)
        .without("n2", Found::TimedOut);
    let (client, _) = nodes.client(&["n1", "n2"], |_| {});
    let error = client.write(put("a")).await.unwrap_err();
    let ClientError::Unreachable(evidence) = error else {
        panic!("{error:?}")
    };
    let findings: Vec<String> = evidence.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, ["n1 connection refused", "n2 timed out"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_certificate_ends_the_call_at_once() {
    let rejected = Found::CertificateRejected("expired".to_owned());
    let nodes = nodes(&["n1"], |_, _, _| Act::Nothing).without("n1", rejected);
    let (client, _) = nodes.client(&["n1"], |_| {});
    let began = tokio::time::Instant::now();
    let error = client.write(put("a")).await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotAuthorised { .. }),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_expired_between_writes_is_replaced() {
    let script = |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        2 => refuse(Refusal::SessionExpired),
        _ => done(request),
    };
    let (client, seen) = nodes(&["n1"], script).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
    client.write(put("b")).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(
        matches!(seen.writes[2], (_, SessionRef::Named(_), 1, 1)),
        "{:?}",
        seen.writes[2]
    );
    assert_ne!(
        seen.writes[2].1, seen.writes[0].1,
        "the old name must not come back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_expired_after_an_unanswered_attempt_is_unknown() {
    let script = |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        2 => Act::HangUp,
        3 => refuse(Refusal::SessionExpired),
        _ => done(request),
    };
    let (client, _) = nodes(&["n1"], script).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
    let error = client.write(put("b")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    client.write(put("c")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_closed_by_sending_again() {
    let script = |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        1..3 => refuse(Refusal::SequenceGap),
        _ => done(request),
    };
    let (client, _) = nodes(&["n1"], script).client(&["n1"], |_| {});
    let first = client.submit(put("a")).await.unwrap();
    let second = client.submit(put("b")).await.unwrap();
    assert_eq!(first.result().await.unwrap().revision, 1);
    assert_eq!(second.result().await.unwrap().revision, 2);
}

#[tokio::test(start_paused = true)]
async fn overload_is_a_refusal_unless_the_caller_has_patience() {
    let overloaded = || Refusal::Overloaded {
        what: "requests waiting".to_owned(),
        limit: 1,
    };
    let script = move |_: &str, request: &RequestFrame, seen: &mut Seen| match seen.writes.len() {
        1..5 => refuse(overloaded()),
        _ => done(request),
    };
    let (client, _) = nodes(&["n1"], script).client(&["n1"], |_| {});
    let error = client.write(put("a")).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused(Refusal::Overloaded { .. })),
        "{error:?}"
    );
    let (patient, _) =
        nodes(&["n1"], script).client(&["n1"], |options| options.retry_overloaded = true);
    patient.write(put("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_named_write_uses_the_callers_name_and_the_first_number() {
    let (client, seen) = nodes(&["n1"], |_, request, _| done(request)).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
    client.write_named(put("b"), 77).await.unwrap();
    assert_eq!(
        seen.lock().unwrap().writes[1],
        ("n1".to_owned(), SessionRef::Named(77), 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pinned_client_never_dials_a_member_that_it_learns() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n2" => done(request),
        _ => refuse(no_leader()),
    };
    let (client, seen) =
        nodes(&["n1", "n2"], script).client(&["n1"], |options| options.pinned = true);
    let error = client.write(put("a")).await.unwrap_err();
    assert!(matches!(error, ClientError::NoQuorum { .. }), "{error:?}");
    let survey_dials = 1;
    let seen = seen.lock().unwrap();
    let others = seen.dialled.iter().filter(|name| *name != "n1").count();
    assert_eq!(
        others, survey_dials,
        "only the survey looks at the other members"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_with_much_to_write_goes_to_the_leader_first() {
    let mut nodes = nodes(&["n1", "n2"], |_, request, _| done(request));
    nodes.leader = Some(1);
    let (client, seen) = nodes.client(&["n1"], |options| options.prefer_leader = true);
    client.write(put("a")).await.unwrap();
    assert_eq!(seen.lock().unwrap().writes[0].0, "n2");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_be_reached_does_not_hold_up_the_write() {
    let mut nodes =
        nodes(&["n1", "n2"], |_, request, _| done(request)).without("n2", Found::TimedOut);
    nodes.leader = Some(1);
    let (client, seen) = nodes.client(&["n1"], |options| options.prefer_leader = true);
    let began = tokio::time::Instant::now();
    client.write(put("a")).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(seen.lock().unwrap().writes[0].0, "n1");
}

#[tokio::test(start_paused = true)]
async fn garbage_from_a_node_is_a_lost_link_and_not_a_panic() {
    let script = |name: &str, request: &RequestFrame, _: &mut Seen| match name {
        "n1" => Act::Garbage,
        _ => done(request),
    };
    let (client, _) = nodes(&["n1", "n2"], script).client(&["n1"], |_| {});
    client.write(put("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_survey_reports_every_member_from_one_endpoint() {
    let nodes =
        nodes(&["n1", "n2", "n3"], |_, _, _| Act::Nothing).without("n3", Found::ConnectionRefused);
    let (client, _) = nodes.client(&["n2"], |_| {});
    let survey = client.survey().await;
    let found: Vec<_> = survey
        .nodes
        .iter()
        .map(|node| (node.name.as_deref(), node.status.is_ok()))
        .collect();
    assert_eq!(
        found,
        [(Some("n1"), true), (Some("n2"), true), (Some("n3"), false)]
    );
    assert_eq!(survey.voters().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_ends_what_is_unanswered_and_takes_nothing_more() {
    let (client, _) = nodes(&["n1"], |_, _, _| Act::Nothing).client(&["n1"], |_| {});
    let pending = client.submit(put("a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.close().await;
    assert!(matches!(
        pending.result().await.unwrap_err(),
        ClientError::Unknown { .. }
    ));
    assert!(matches!(
        client.write(put("b")).await.unwrap_err(),
        ClientError::Closed
    ));
}
