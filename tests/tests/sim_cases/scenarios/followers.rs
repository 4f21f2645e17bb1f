//! Followers that are away: whoever leads goes on, and they catch up.

use kvd_sim::sim::{Place, World};

use super::{Loss, WATCHED_MS, agree, all, held, hold, indexes, quiet, set, stays, written};
use crate::shared::{ET_MS, Played, ask, pass, play, seeds};

/// A follower is away for so long. Who leads, and in which term, stays as it was, also after its return.
fn lose_a_follower(world: &mut World, follower: Place, loss: Loss, ms: u64) -> Played {
    let places = all(world);
    let led = agree(world, &places)?;
    loss.hit(world, follower, ms)?;
    pass(world, ms)?;
    // A process that has just started must first hear its leader.
    assert_eq!(agree(world, &places)?, led, "{loss:?} for {ms} ms");
    assert_eq!(world.counts().elections, 1, "elections");
    Ok(())
}

/// Each seed with each way to lose the follower of a cluster of three; afterwards all is watched for a while.
fn play_all(count: u64, act: impl Fn(&mut World, Place, Loss) -> Played) {
    for loss in Loss::ALL {
        for seed in seeds(count) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| {
                let places = all(world);
                let led = agree(world, &places)?;
                act(world, (led.0 + 1) % 3, loss)?;
                stays(world, &places, led, WATCHED_MS)?;
                assert_eq!(world.counts().elections, 1, "elections");
                Ok(())
            });
        }
    }
}

/// Scenario 7: a follower that is away for less than an election timeout changes nothing.
#[test]
fn follower_that_is_away_briefly_changes_nothing() {
    play_all(8, |world, follower, loss| {
        lose_a_follower(world, follower, loss, ET_MS / 4)
    });
}

/// Scenario 8: followers that are away again and again, briefly and for long, depose nobody.
#[test]
fn followers_that_are_away_repeatedly_depose_nobody() {
    play_all(3, |world, follower, loss| {
        let other = 3 - follower - (follower + 2) % 3;
        for round in 0..12 {
            let node = if round % 2 == 0 { follower } else { other };
            lose_a_follower(world, node, loss, ET_MS * (1 + round % 4) / 2)?;
        }
        Ok(())
    });
}

/// Scenario 9: a follower that is away for long, while nothing happens, comes back into the same term.
#[test]
fn follower_that_is_away_for_long_comes_back_into_the_same_term() {
    play_all(4, |world, follower, loss| {
        let committed = world.committed().len();
        lose_a_follower(world, follower, loss, 50 * ET_MS)?;
        assert_eq!(world.committed().len(), committed, "nobody asked anything");
        Ok(())
    });
}

/// The others take commands while a follower is away; it has none of them, and then all of them, at their indexes.
fn commands_meanwhile(world: &mut World, follower: Place, loss: Loss) -> Played {
    let led = agree(world, &all(world))?;
    let ms = 50 * ET_MS;
    loss.hit(world, follower, ms)?;
    let back_us = world.now() + ms * 1_000;
    let keys: Vec<String> = (0..30).map(|number| format!("key-{number:02}")).collect();
    let first = world.committed().len() as u64 + 1;
    for key in &keys {
        written(ask(world, led.0, set(key, key))?);
        assert_eq!(held(world, follower, key), None, "it was to be away");
    }
    assert!(world.now() < back_us, "it was to be away meanwhile");
    world.run_to(back_us)?;
    for (key, index) in keys.iter().zip(first..) {
        hold(world, &[follower], key, key)?;
        assert_eq!(indexes(world, key), [index], "index of {key}");
    }
    let applied = world.store(follower).map(|store| store.applied_index());
    assert_eq!(applied, Some(first + keys.len() as u64 - 1));
    assert_eq!(agree(world, &all(world))?, led);
    Ok(())
}

/// Scenario 10: a follower is away for long and commands are committed meanwhile: it gets all of them, and deposes nobody.
#[test]
fn follower_that_is_away_for_long_gets_what_was_committed_meanwhile() {
    play_all(4, commands_meanwhile);
}

/// Scenario 15: a follower misses one command and catches up; the others had it at once.
#[test]
fn follower_that_missed_a_command_catches_up() {
    play_all(8, |world, follower, loss| {
        let places = all(world);
        let (leader, _) = agree(world, &places)?;
        loss.hit(world, follower, 5 * ET_MS)?;
        let back_us = world.now() + 5 * ET_MS * 1_000;
        written(ask(world, leader, set("missed", "value"))?);
        let other = 3 - follower - leader;
        world.run_to(back_us - 1_000)?;
        assert_eq!(held(world, other, "missed").as_deref(), Some("value"));
        assert_eq!(held(world, follower, "missed"), None, "it was to be away");
        hold(world, &places, "missed", "value")?;
        assert_eq!(indexes(world, "missed").len(), 1);
        Ok(())
    });
}
