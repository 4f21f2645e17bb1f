//! Commands: where they land in the log, and which of them take effect at all.

use bytes::Bytes;
use kvd::kv::command::RangeQuery;
use kvd::wire::client::{Consistency, Outcome, Request, Response};
use kvd_sim::sim::{Place, World};
use raft_core::EntryKind;

use super::{
    FOR_GOOD_MS, Loss, SOON_MS, WATCHED_MS, agree, all, held, hold, indexes, never, quiet, set,
    stays, without, written,
};
use crate::shared::{ET_MS, Played, TIMEOUT_MS, ask, pass, play, seeds, wait};

/// Scenario 11: one command is committed once, at the next index, and takes effect on every node.
#[test]
fn one_command_is_committed_once_and_reaches_every_node() {
    for seed in seeds(20) {
        play(&quiet(seed, 3), |world| {
            let places = all(world);
            let led = agree(world, &places)?;
            let last = world.committed().len() as u64;
            let result = written(ask(world, led.0, set("key", "value"))?);
            assert_eq!(result.revision, 1);
            assert_eq!(indexes(world, "key"), [last + 1]);
            hold(world, &places, "key", "value")?;
            stays(world, &places, led, WATCHED_MS)?;
            assert_eq!(world.committed().len() as u64, last + 1);
            Ok(())
        });
    }
}

/// Commands asked one after the other, each before the one before is answered.
fn ask_at_once(world: &mut World, place: Place, keys: &[String]) -> Played<Vec<Response>> {
    let mut numbers = Vec::new();
    for key in keys {
        let number = world.probe(place, set(key, key))?;
        numbers.push(number.expect("it runs"));
    }
    wait(world, SOON_MS, "all are answered", |it| {
        numbers.iter().all(|number| it.probed(*number).is_some())
    })?;
    let answers = numbers.iter().filter_map(|number| world.probed(*number));
    Ok(answers.map(|(_, response)| response.clone()).collect())
}

/// Scenario 12: several commands are committed in the order in which they were asked, at consecutive indexes, on every node.
#[test]
fn several_commands_have_consecutive_indexes_on_every_node() {
    for seed in seeds(10) {
        play(&quiet(seed, 3), |world| {
            let places = all(world);
            let (leader, _) = agree(world, &places)?;
            let keys: Vec<String> = (0..40).map(|number| format!("key-{number:02}")).collect();
            let (alone, together) = keys.split_at(20);
            let last = world.committed().len() as u64;
            let mut results = Vec::new();
            for key in alone {
                results.push(written(ask(world, leader, set(key, key))?));
            }
            let answers = ask_at_once(world, leader, together)?;
            results.extend(answers.into_iter().map(written));
            for (place, key) in keys.iter().enumerate() {
                assert_eq!(indexes(world, key), [last + 1 + place as u64], "{key}");
                assert_eq!(results[place].revision, 1 + place as u64, "{key}");
                hold(world, &places, key, key)?;
            }
            let commands = world.committed().iter();
            let commands = commands.filter(|entry| entry.kind == EntryKind::Command);
            assert_eq!(commands.count(), keys.len(), "commands in the log");
            Ok(())
        });
    }
}

/// Scenario 13: a command given to a follower is committed once, by the leader, and answered by the follower.
#[test]
fn command_given_to_a_follower_is_committed_by_the_leader() {
    for seed in seeds(10) {
        play(&quiet(seed, 3), |world| {
            let places = all(world);
            let led = agree(world, &places)?;
            for follower in without(&places, led.0) {
                let (key, last) = (format!("key-{follower}"), world.committed().len() as u64);
                written(ask(world, follower, set(&key, "value"))?);
                assert_eq!(indexes(world, &key), [last + 1]);
                assert_eq!(held(world, led.0, &key).as_deref(), Some("value"));
                hold(world, &places, &key, "value")?;
            }
            stays(world, &places, led, WATCHED_MS)
        });
    }
}

/// Scenario 13, when the follower has nobody to give it to: it is refused for good, and never takes effect.
#[test]
fn command_given_to_a_follower_without_a_leader_never_takes_effect() {
    for loss in Loss::ALL {
        for seed in seeds(4) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| {
                let places = all(world);
                let (leader, _) = agree(world, &places)?;
                let follower = (leader + 1) % 3;
                for place in without(&places, follower) {
                    loss.hit(world, place, 2 * WATCHED_MS)?;
                }
                // It first must notice that its leader is gone: before, it would send the command to nowhere.
                pass(world, 3 * ET_MS)?;
                let answer = ask(world, follower, set("refused", "value"))?;
                assert_eq!(outcome(&answer), Outcome::Definite, "{answer:?}");
                pass(world, 2 * WATCHED_MS)?;
                let (leader, _) = agree(world, &places)?;
                written(ask(world, leader, set("later", "value"))?);
                hold(world, &places, "later", "value")?;
                assert_eq!(indexes(world, "refused"), [0; 0]);
                Ok(())
            });
        }
    }
}

/// What a refusal says of a write. It must be one.
fn outcome(answer: &Response) -> Outcome {
    if let Response::Refused(refusal) = answer {
        return refusal.outcome();
    }
    panic!("a write that cannot be committed was answered with {answer:?}")
}

/// Scenario 14: the leader is lost as soon as it has answered: its successor holds the command, and commits nothing else there.
#[test]
fn command_outlives_the_leader_that_committed_it() {
    for loss in Loss::ALL {
        for seed in seeds(10) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| {
                let places = all(world);
                let (old, _) = agree(world, &places)?;
                written(ask(world, old, set("key", "value"))?);
                let found = indexes(world, "key");
                assert_eq!(found.len(), 1);
                loss.hit(world, old, FOR_GOOD_MS)?;
                let rest = without(&places, old);
                let (new, _) = agree(world, &rest)?;
                assert_eq!(held(world, new, "key").as_deref(), Some("value"));
                hold(world, &rest, "key", "value")?;
                assert_eq!(indexes(world, "key"), found);
                Ok(())
            });
        }
    }
}

/// A leader without a majority is given a command; later the others come back.
fn command_without_a_majority(world: &mut World, loss: Loss) -> Played {
    let places = all(world);
    let (leader, _) = agree(world, &places)?;
    let majority = places.len() / 2 + 1;
    let lost: Vec<Place> = (1..=majority)
        .map(|it| (leader + it) % places.len())
        .collect();
    for place in &lost {
        loss.hit(world, *place, 2 * WATCHED_MS)?;
    }
    let back_us = world.now() + 2 * WATCHED_MS * 1_000;
    let committed = world.committed().len();
    let number = world.probe(leader, set("open", "value"))?.expect("it runs");
    never(world, "a minority commits", |it| {
        it.committed().len() > committed
    })?;
    let (_, answer) = world.probed(number).expect("its time is up").clone();
    let outcome = outcome(&answer);
    assert!(places.iter().all(|it| held(world, *it, "open").is_none()));
    world.run_to(back_us)?;
    let (leader, _) = agree(world, &places)?;
    written(ask(world, leader, set("after", "value"))?);
    hold(world, &places, "after", "value")?;
    // Of unknown outcome it may have taken effect by now: everywhere or nowhere, and once.
    let found = indexes(world, "open").len();
    let most = usize::from(outcome == Outcome::Unknown);
    assert!(found <= most, "{answer:?}, and {found} times in the log");
    let held = places
        .iter()
        .filter(|it| held(world, **it, "open").is_some());
    assert_eq!(held.count(), found * places.len());
    Ok(())
}

/// Scenario 16: without a majority nothing is committed, and with one again all goes on.
#[test]
fn nothing_is_committed_without_a_majority() {
    for nodes in [3, 5] {
        for loss in Loss::ALL {
            for seed in seeds(4) {
                println!("{loss:?}");
                play(&quiet(seed, nodes), |world| {
                    command_without_a_majority(world, loss)
                });
            }
        }
    }
}

/// A leader is cut off and given a command; the others elect another one, which commits something else.
fn command_for_a_cut_off_leader(world: &mut World) -> Played {
    let places = all(world);
    let (old, before) = agree(world, &places)?;
    // For longer than it may keep the command: a node that is back in time hands it to the new leader.
    let ms = u64::from(TIMEOUT_MS) + 5 * ET_MS;
    Loss::CutOff.hit(world, old, ms)?;
    let back_us = world.now() + ms * 1_000;
    let number = world.probe(old, set("lost", "value"))?.expect("it runs");
    let last = world.status(old).expect("it runs").last;
    assert_eq!(last.term.0, before, "it still took the command for its own");
    assert_eq!(last.index.0, world.committed().len() as u64 + 1);
    let (new, _) = agree(world, &without(&places, old))?;
    written(ask(world, new, set("kept", "value"))?);
    let everywhere = places.clone();
    let is_seen = move |it: &World| everywhere.iter().any(|at| held(it, *at, "lost").is_some());
    let left_us = back_us - world.now();
    assert!(!world.run_until(left_us, &is_seen)?, "it was seen");
    let (_, answer) = world.probed(number).expect("its time is up").clone();
    let _unknown_or_failed = outcome(&answer);
    never(world, "the lost value is seen", is_seen)?;
    let (leader, _) = agree(world, &places)?;
    assert_eq!(leader, new, "it came back as a follower");
    assert_eq!(indexes(world, "lost"), [0; 0]);
    hold(world, &places, "kept", "value")
}

/// Scenario 17: a command given to a leader that is cut off is never committed, seen by nobody, and its client is not told that it
/// was done.
#[test]
fn command_given_to_a_cut_off_leader_never_takes_effect() {
    for nodes in [3, 5] {
        for seed in seeds(20) {
            play(&quiet(seed, nodes), command_for_a_cut_off_leader);
        }
    }
}

/// Set and get: 250 keys, set through the nodes in turn, are read back through every node.
#[test]
fn two_hundred_and_fifty_keys_are_read_back_through_every_node() {
    for seed in seeds(2) {
        play(&quiet(seed, 3), |world| {
            let places = all(world);
            agree(world, &places)?;
            for number in 0..250 {
                let (key, value) = (format!("key-{number:03}"), format!("value {number}"));
                written(ask(world, number % 3, set(&key, &value))?);
                for place in &places {
                    assert_eq!(read(world, *place, &key)?, Some(value.clone()));
                }
            }
            assert_eq!(read(world, 0, "key-250")?, None, "a key that was never set");
            Ok(())
        });
    }
}

/// A linearizable read of one key at a node.
fn read(world: &mut World, place: Place, key: &str) -> Played<Option<String>> {
    let request = Request::Read {
        consistency: Consistency::Linearizable,
        query: RangeQuery::key(Bytes::from(key.to_owned())),
        timeout_ms: TIMEOUT_MS,
    };
    let answer = ask(world, place, request)?;
    if let Response::Range { result, .. } = answer {
        let item = result.items.first();
        return Ok(item.map(|item| String::from_utf8_lossy(&item.value).into_owned()));
    }
    panic!("a read was answered with {answer:?}")
}
