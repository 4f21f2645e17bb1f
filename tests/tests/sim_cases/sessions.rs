//! Sessions: a repeated write takes effect once, one that does not fit is refused, and what clients are told is true.

use std::collections::BTreeSet;

use bytes::Bytes;

use kvd::kv::command::{
    Command, CommandResult, Compare, KeyRange, Op, OpResult, RangeQuery, Test, Txn,
};
use kvd::wire::client::{Outcome, Refusal, Response};
use kvd_sim::sim::{Asked, Call, Fault, Place, Scenario, Told, World, swarm};
use rand::RngExt;

use crate::shared::{
    ET_MS, Played, ask, draws, follower, increment, leader, pass, play, put, seeds, value, wait,
    write, write_within,
};

/// Name of the session that the tests use.
const NAME: u128 = 0x5e55_1011;

/// A world without clients: all that is asked is asked by hand.
fn quiet(seed: u64) -> Scenario {
    Scenario {
        clients: 0,
        ..Scenario::new(seed)
    }
}

fn written(response: Response) -> CommandResult {
    if let Response::Written { result, .. } = response {
        return result;
    }
    panic!("a write was answered with {response:?}")
}

fn refused(response: Response) -> Refusal {
    if let Response::Refused(refusal) = response {
        return refusal;
    }
    panic!("a write that must be refused was answered with {response:?}")
}

/// Sets a key that is not there: done twice, the second time would fail.
fn put_if_absent(key: &str) -> Command {
    let key = Bytes::from(key.to_owned());
    Txn {
        compare: vec![Compare {
            key: key.clone(),
            test: Test::Absent,
        }],
        then: vec![Op::Put {
            key,
            value: "mine".into(),
            want_previous: false,
        }],
        otherwise: Vec::new(),
    }
    .into()
}

/// Writes whose answers get lost: both take effect, and nobody is told.
fn write_without_answer(world: &mut World, place: Place) -> Played {
    let ms = 2_000;
    world.hit(Fault::LoseAnswers { ms })?;
    let requests = [
        write(NAME, 1, &increment("n")),
        write(NAME, 2, &put_if_absent("c")),
    ];
    let mut numbers = Vec::new();
    for request in requests {
        numbers.extend(world.probe(place, request)?);
    }
    wait(world, ms, "both took effect", |it| {
        value(it, "n").is_some() && value(it, "c").is_some()
    })?;
    pass(world, ms)?;
    assert!(
        numbers.iter().all(|number| world.probed(*number).is_none()),
        "an answer came through"
    );
    Ok(())
}

/// The same two writes again: the answers are those of the first time, and nothing changes.
fn retry(world: &mut World, place: Place) -> Played {
    let revision = world.replayed().revision();
    let again = written(ask(world, place, write(NAME, 1, &increment("n")))?);
    let counted = OpResult::Incremented {
        value: 1,
        version: 1,
    };
    assert_eq!(again.results, [counted]);
    let again = written(ask(world, place, write(NAME, 2, &put_if_absent("c")))?);
    assert!(again.succeeded, "the repetition was compared again");
    assert_eq!(value(world, "n").as_deref(), Some("1"));
    assert_eq!(
        world.replayed().revision(),
        revision,
        "a repetition changed something"
    );
    Ok(())
}

/// Case 43: the answers to an increment and to a compare-and-set get lost; asked again at every node, they run once, and the
/// answers are those of the first time.
#[test]
fn retry_after_a_lost_answer_runs_once() {
    for seed in seeds(10) {
        play(&quiet(seed), |world| {
            leader(world)?;
            let first = draws(seed).random_range(0..world.nodes());
            write_without_answer(world, first)?;
            (0..world.nodes()).try_for_each(|place| retry(world, place))
        });
    }
}

/// The log of every node begins after everything that is committed now, and the snapshots hold it.
fn compact(world: &mut World) -> Played {
    let index = world.committed().len() as u64;
    wait(world, 20 * ET_MS, "all nodes are level", World::is_level)?;
    // The log is kept for the older one of two snapshots.
    for round in 0..3 {
        let filler = put("filler", &round.to_string());
        written(ask(world, 0, write(NAME + 1, round + 1, &filler))?);
        wait(world, 20 * ET_MS, "all nodes are level", World::is_level)?;
        for node in 0..world.nodes() {
            world.hit(Fault::DiscardLog { node })?;
        }
        pass(world, 500)?;
    }
    wait(world, 20 * ET_MS, "all logs begin later", |it| {
        (0..it.nodes()).all(|place| {
            it.status(place)
                .is_some_and(|status| status.first.0 > index)
        })
    })
}

/// Case 44: between a lost answer and the retry leadership moves, all nodes restart, and logs are compacted.
#[test]
fn retry_runs_once_after_a_new_leader_a_restart_of_all_and_compaction() {
    for seed in seeds(6) {
        play(&quiet(seed), |world| {
            let node = leader(world)?;
            write_without_answer(world, node)?;
            world.hit(Fault::Isolate {
                node,
                ms: 5 * ET_MS,
            })?;
            wait(world, 10 * ET_MS, "another leader", |it| {
                it.leader().is_some_and(|it| it != node)
            })?;
            pass(world, 6 * ET_MS)?;
            let second = follower(world)?;
            retry(world, second)?;
            compact(world)?;
            world.hit(Fault::Blackout { down_ms: ET_MS })?;
            pass(world, 2 * ET_MS)?;
            leader(world)?;
            (0..world.nodes()).try_for_each(|place| retry(world, place))
        });
    }
}

/// How many sessions every node holds; all must have applied the same.
fn session_counts(world: &World) -> BTreeSet<usize> {
    let stores = (0..world.nodes()).filter_map(|place| world.store(place));
    stores.map(|store| store.sessions().len()).collect()
}

/// An hour and more of log time: the leader's clock leaps by less than an election timeout at a time, so that it stays leader.
fn let_sessions_idle(world: &mut World) -> Played {
    let (leap_ms, idle_ms) = (ET_MS - 20, 3_600_000);
    for _ in 0..=idle_ms / leap_ms {
        let node = leader(world)?;
        world.hit(Fault::ClockJump { node, ms: leap_ms })?;
        pass(world, 3)?;
    }
    Ok(())
}

/// Case 45: a session that was idle for too long is gone on all nodes; its retry is told so, and does not run.
#[test]
fn retry_in_an_expired_session_is_told_so_and_does_not_run() {
    let scenario = Scenario {
        delay_ms: 1,
        sync_ms: 1,
        ..quiet(45)
    };
    play(&scenario, |world| {
        let place = leader(world)?;
        let Response::Written { session, .. } = ask(world, place, write(NAME, 1, &increment("n")))?
        else {
            panic!("a write was not answered")
        };
        for other in 1..20 {
            written(ask(world, place, write(NAME + other, 1, &put("k", "v")))?);
        }
        wait(world, 20 * ET_MS, "all nodes are level", World::is_level)?;
        assert_eq!(session_counts(world), BTreeSet::from([20]));
        let_sessions_idle(world)?;
        // Time passes in the log only with entries.
        written(ask(world, place, write(NAME + 100, 1, &put("k", "w")))?);
        wait(world, 20 * ET_MS, "all nodes are level", World::is_level)?;
        assert_eq!(
            session_counts(world),
            BTreeSet::from([1]),
            "old sessions are still there"
        );
        for place in 0..world.nodes() {
            let request = in_session(session, 1);
            let refusal = refused(ask(world, place, request)?);
            assert_eq!(refusal, Refusal::SessionExpired);
            assert_eq!(refusal.outcome(), Outcome::Unknown);
        }
        assert_eq!(value(world, "n").as_deref(), Some("1"), "it ran again");
        Ok(())
    });
}

/// The increment again, in the session with this id.
fn in_session(id: u64, sequence: u64) -> kvd::wire::client::Request {
    let mut request = write(NAME, sequence, &increment("n"));
    if let kvd::wire::client::Request::Write { session, .. } = &mut request {
        *session = kvd::kv::envelope::SessionRef::Id(id);
    }
    request
}

/// Case 46: sequence 5 before 4 is refused and does not run, nor does 4 with another content.
#[test]
fn sequences_out_of_order_or_used_before_are_refused() {
    for seed in seeds(8) {
        play(&quiet(seed), |world| {
            leader(world)?;
            let mut rng = draws(seed);
            let nodes = world.nodes();
            let mut anywhere = || rng.random_range(0..nodes);
            for sequence in 1..=3 {
                let step = write(NAME, sequence, &put("k", &sequence.to_string()));
                written(ask(world, anywhere(), step)?);
            }
            let five = write(NAME, 5, &put("five", "5"));
            let refusal = refused(ask(world, anywhere(), five.clone())?);
            assert_eq!(
                (refusal.outcome(), &refusal),
                (Outcome::Definite, &Refusal::SequenceGap)
            );
            assert_eq!(value(world, "five"), None, "it ran before 4");
            let four = write(NAME, 4, &put("k", "4"));
            let first = written(ask(world, anywhere(), four.clone())?);
            let other = write(NAME, 4, &put("k", "another"));
            let refusal = refused(ask(world, anywhere(), other)?);
            assert_eq!(refusal, Refusal::SequenceReused);
            assert_eq!(
                value(world, "k").as_deref(),
                Some("4"),
                "a used sequence ran again"
            );
            assert_eq!(written(ask(world, anywhere(), four)?), first);
            written(ask(world, anywhere(), five)?);
            assert_eq!(value(world, "five").as_deref(), Some("5"));
            Ok(())
        });
    }
}

/// The value that a plain put would leave; each is made once.
fn unique_value(call: &Call) -> Option<Bytes> {
    match &call.asked {
        Asked::Write(Command::Op(Op::Put { value, .. })) => Some(value.clone()),
        Asked::Write(_) | Asked::Read(_) => None,
    }
}

/// Everything that any node holds now.
fn note_visible(world: &World, seen: &mut BTreeSet<Bytes>) {
    for place in 0..world.nodes() {
        if let Some(store) = world.store(place) {
            let found = store.query(&RangeQuery::new(KeyRange::All));
            seen.extend(found.items.into_iter().map(|item| item.value));
        }
    }
}

/// Random faults, and a time that is longer than the patience of clients in which all machines are down, all disks are full, or
/// all answers get lost: then requests fail, or nobody knows.
fn hopeless(seed: u64) -> Scenario {
    let scenario = Scenario {
        ms: 16_000,
        clients: 4,
        ..swarm(seed)
    };
    let (at, ms) = (1_000, 13_500);
    match seed % 3 {
        0 => scenario.with(at, Fault::Blackout { down_ms: ms }),
        1 => (0..scenario.nodes).fold(scenario, |it, node| it.with(at, Fault::Full { node, ms })),
        _ => scenario.with(at, Fault::LoseAnswers { ms: ms / 2 }),
    }
}

/// Case 47: whatever went wrong, no value of a failed write was ever visible anywhere.
#[test]
fn value_of_a_failed_write_is_never_visible() {
    let (mut failed, mut unknown, mut visible_unknown) = (0, 0, 0);
    for seed in seeds(12) {
        let scenario = hopeless(seed);
        let ((seen, calls), _) = play(&scenario, |world| {
            let mut seen = BTreeSet::new();
            while world.now() < scenario.ms * 1_000 {
                pass(world, 50)?;
                note_visible(world, &mut seen);
            }
            Ok((seen, world.calls()))
        });
        for call in &calls {
            let Some(value) = unique_value(call) else {
                continue;
            };
            match call.told {
                Told::Failed => {
                    failed += 1;
                    assert!(
                        !seen.contains(&value),
                        "{value:?} was visible, and has failed"
                    );
                }
                Told::Unknown if call.ended_us.is_some() => {
                    unknown += 1;
                    visible_unknown += u32::from(seen.contains(&value));
                }
                Told::Unknown | Told::Written(_) | Told::Read(_) => {}
            }
        }
    }
    println!("{failed} failed, {unknown} unknown, of which {visible_unknown} were visible");
    assert!(failed > 0, "nothing failed");
    assert!(
        visible_unknown > 0,
        "no unknown write took effect: nothing was uncertain"
    );
}

/// Case 47: a write that was proposed by a leader that is then cut off is unknown to its client, not failed. It takes effect if
/// its entry had left before, and not if it had not.
#[test]
fn timeout_after_proposing_is_unknown() {
    for seed in seeds(8) {
        let leaves = seed.is_multiple_of(2);
        play(&quiet(seed), |world| {
            let node = leader(world)?;
            wait(world, 20 * ET_MS, "all nodes are level", World::is_level)?;
            let cut = Fault::Isolate {
                node,
                ms: 20 * ET_MS,
            };
            if !leaves {
                world.hit(cut)?;
            }
            let request = write_within(150, NAME, 1, &put("k", "v"));
            let number = world.probe(node, request)?.expect("its process runs");
            if leaves {
                world.hit(cut)?;
            }
            wait(world, 1_000, "an answer", |it| it.probed(number).is_some())?;
            let (_, response) = world.probed(number).expect("it was just seen");
            let refusal = refused(response.clone());
            assert_eq!(refusal.outcome(), Outcome::Unknown, "{refusal:?}");
            pass(world, 30 * ET_MS)?;
            assert_eq!(value(world, "k").is_some(), leaves, "seed {seed}");
            Ok(())
        });
    }
}
