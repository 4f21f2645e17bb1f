//! Who leads, and that nobody does without a quorum.

use kvd_sim::sim::{Fault, Place, World};

use super::{
    FOR_GOOD_MS, Loss, SOON_MS, WATCHED_MS, agree, agreed, all, held, hold, never, one_leads,
    quiet, role, set, stays, term, without, written,
};
use crate::shared::{ET_MS, Played, ask, pass, play, seeds, wait};

/// Scenario 1: a new cluster elects one leader, whom all follow in one term, and keeps it.
#[test]
fn first_election_makes_one_leader_whom_all_follow() {
    for seed in seeds(20) {
        play(&quiet(seed, 3), |world| {
            let places = all(world);
            assert!(!one_leads(world, &places), "nobody was asked yet");
            let led = agree(world, &places)?;
            stays(world, &places, led, WATCHED_MS)?;
            assert_eq!(world.counts().elections, 1, "elections");
            Ok(())
        });
    }
}

/// One of the others leads in a later term; who was cut off notices that it leads nobody.
fn lose_the_leader(world: &mut World, loss: Loss) -> Played {
    let places = all(world);
    let (old, before) = agree(world, &places)?;
    loss.hit(world, old, FOR_GOOD_MS)?;
    let rest = without(&places, old);
    let led = agree(world, &rest)?;
    assert!(led.1 > before, "term {} after term {before}", led.1);
    stays(world, &rest, led, WATCHED_MS)?;
    if loss.can_be_asked() {
        assert!(!one_leads(world, &[old]), "it believes that it still leads");
    }
    written(ask(world, led.0, set("key", "value"))?);
    Ok(())
}

/// Scenario 2: the leader is lost, and one of the others takes its place.
#[test]
fn another_leads_when_the_leader_is_lost() {
    for loss in Loss::ALL {
        for seed in seeds(8) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| lose_the_leader(world, loss));
        }
    }
}

/// The leader and a follower are away at once: the third does not lead, and its term stands still.
fn lose_the_quorum(world: &mut World, loss: Loss) -> Played {
    let places = all(world);
    let (old, before) = agree(world, &places)?;
    let follower = (old + 1) % 3;
    let left = (old + 2) % 3;
    loss.hit(world, old, FOR_GOOD_MS)?;
    loss.hit(world, follower, WATCHED_MS + 5 * ET_MS)?;
    never(world, "one of three leads", |it| one_leads(it, &[left]))?;
    assert_eq!(term(world, left), before, "it stood for election");
    let rest = [follower, left];
    wait(world, 5 * ET_MS + SOON_MS, "two of three lead", |it| {
        agreed(it, &rest).is_some()
    })?;
    let (leader, _) = agree(world, &rest)?;
    written(ask(world, leader, set("key", "value"))?);
    Ok(())
}

/// Scenario 3: leader and follower are lost: no quorum, no leader; with one of them back there is one again.
#[test]
fn nobody_leads_when_leader_and_follower_are_lost() {
    for loss in Loss::ALL {
        for seed in seeds(8) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| lose_the_quorum(world, loss));
        }
    }
}

/// The old leader is away while the others elect another one.
fn lose_the_leader_for_a_while(world: &mut World, loss: Loss) -> Played {
    let places = all(world);
    let (old, _) = agree(world, &places)?;
    loss.hit(world, old, WATCHED_MS)?;
    let back_us = world.now() + WATCHED_MS * 1_000;
    let led = agree(world, &without(&places, old))?;
    let elections = world.counts().elections;
    world.run_to(back_us)?;
    assert_eq!(agree(world, &places)?, led, "it disturbed the others");
    stays(world, &places, led, WATCHED_MS)?;
    assert_eq!(world.counts().elections, elections, "there was an election");
    Ok(())
}

/// Scenario 4: a lost leader comes back and follows the one that has taken its place, in the same term.
#[test]
fn old_leader_that_returns_follows_the_new_one() {
    for loss in Loss::ALL {
        for seed in seeds(8) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| {
                lose_the_leader_for_a_while(world, loss)
            });
        }
    }
}

/// Everybody is away, and comes back.
fn lose_everybody(world: &mut World, loss: Loss) -> Played {
    let places = all(world);
    let (leader, before) = agree(world, &places)?;
    written(ask(world, leader, set("key", "value"))?);
    for place in &places {
        loss.hit(world, *place, WATCHED_MS)?;
    }
    let back_us = world.now() + WATCHED_MS * 1_000;
    if loss.can_be_asked() {
        pass(world, 2 * ET_MS)?;
        never_until(world, back_us, |it| one_leads(it, &places))?;
    }
    world.run_to(back_us)?;
    let (leader, after) = agree(world, &places)?;
    // Who stood still knows nothing of it, and leads on.
    assert!(after > before || loss == Loss::Frozen && after == before);
    assert_eq!(held(world, leader, "key").as_deref(), Some("value"));
    hold(world, &places, "key", "value")?;
    written(ask(world, leader, set("later", "value"))?);
    Ok(())
}

/// Goes on and sees that it does not become so.
fn never_until(world: &mut World, us: u64, is_so: impl Fn(&World) -> bool) -> Played {
    let left_us = us - world.now();
    assert!(!world.run_until(left_us, is_so)?, "{}", world.picture());
    Ok(())
}

/// Scenario 5: all nodes are lost at once and come back: one leads, and what was acknowledged is there.
#[test]
fn all_are_lost_and_come_back() {
    for loss in Loss::ALL {
        for seed in seeds(8) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| lose_everybody(world, loss));
        }
    }
}

/// Three leaders of five are lost, one after the other.
fn lose_three_of_five(world: &mut World, loss: Loss) -> Played {
    let mut rest = all(world);
    let (mut leader, mut term) = agree(world, &rest)?;
    for _ in 0..2 {
        loss.hit(world, leader, FOR_GOOD_MS)?;
        rest = without(&rest, leader);
        let (next, later) = agree(world, &rest)?;
        assert!(later > term, "term {later} after term {term}");
        (leader, term) = (next, later);
        written(ask(world, leader, set("key", &term.to_string()))?);
    }
    loss.hit(world, leader, WATCHED_MS + ET_MS)?;
    let left = without(&rest, leader);
    never(world, "two of five lead", |it| one_leads(it, &left))?;
    // With the one that comes back there are three, and the quorum that held the last write.
    wait(world, ET_MS + SOON_MS, "three of five lead", |it| {
        agreed(it, &rest).is_some()
    })?;
    let (leader, _) = agree(world, &rest)?;
    assert_eq!(held(world, leader, "key"), Some(term.to_string()));
    Ok(())
}

/// Scenario 6: five nodes lose two leaders and go on, lose a third and wait, and go on when one is back.
#[test]
fn five_nodes_go_on_without_two_and_not_without_three() {
    for loss in Loss::ALL {
        for seed in seeds(4) {
            println!("{loss:?}");
            play(&quiet(seed, 5), |world| lose_three_of_five(world, loss));
        }
    }
}

/// Scenario 18: the leader is gone for 10 ms: it still leads, in the same term.
#[test]
fn leader_that_is_gone_for_ten_milliseconds_still_leads() {
    for loss in [Loss::CutOff, Loss::Frozen] {
        for seed in seeds(20) {
            println!("{loss:?}");
            play(&quiet(seed, 3), |world| {
                let places = all(world);
                let led = agree(world, &places)?;
                // At all times between two heartbeats, so that now and then one is lost.
                pass(world, 2 * (seed % 20))?;
                loss.hit(world, led.0, 10)?;
                let number = world.probe(led.0, set("key", "value"))?;
                stays(world, &places, led, WATCHED_MS)?;
                assert_eq!(world.counts().elections, 1, "elections");
                let number = number.expect("it runs");
                let (_, answer) = world.probed(number).expect("it was answered");
                written(answer.clone());
                Ok(())
            });
        }
    }
}

/// Two followers crash, then the leader; those that are left of five elect nobody. All come back.
fn lose_two_followers_then_the_leader(world: &mut World, loss: Loss) -> Played {
    let places = all(world);
    let (leader, before) = agree(world, &places)?;
    written(ask(world, leader, set("before", "value"))?);
    let nodes = places.len();
    let followers = [(leader + 1) % nodes, (leader + 2) % nodes];
    for follower in followers {
        loss.hit(world, follower, 2 * WATCHED_MS)?;
        pass(world, ET_MS / 2)?;
    }
    if nodes == 5 {
        written(ask(world, leader, set("between", "value"))?);
    }
    loss.hit(world, leader, 2 * WATCHED_MS)?;
    let left: Vec<Place> = places
        .iter()
        .copied()
        .filter(|it| *it != leader && !followers.contains(it))
        .collect();
    never(world, "a minority leads", |it| one_leads(it, &left))?;
    assert!(left.iter().all(|place| role(world, *place).is_some()));
    pass(world, WATCHED_MS)?;
    let (leader, after) = agree(world, &places)?;
    assert!(after > before, "term {after} after term {before}");
    assert_eq!(held(world, leader, "before").as_deref(), Some("value"));
    if nodes == 5 {
        assert_eq!(held(world, leader, "between").as_deref(), Some("value"));
    }
    written(ask(world, leader, set("after", "value"))?);
    hold(world, &places, "after", "value")
}

/// Scenario 19: two followers crash, then the leader: there is no leader until they are back, and nothing is lost.
#[test]
fn two_followers_crash_and_then_the_leader() {
    for nodes in [3, 5] {
        for loss in [Loss::Killed, Loss::PowerCut] {
            for seed in seeds(6) {
                println!("{loss:?}");
                let act = |world: &mut World| lose_two_followers_then_the_leader(world, loss);
                play(&quiet(seed, nodes), act);
            }
        }
    }
}

/// Scenario 5, with the power of all machines going at one moment, while writes are on their way.
#[test]
fn power_of_all_goes_at_once_while_writes_are_on_their_way() {
    for seed in seeds(8) {
        play(&quiet(seed, 3), |world| {
            let places = all(world);
            let (leader, before) = agree(world, &places)?;
            written(ask(world, leader, set("acknowledged", "value"))?);
            for place in &places {
                let number = world.probe(*place, set(&format!("open-{place}"), "value"))?;
                number.expect("it runs");
            }
            pass(world, seed % 8)?;
            let down_ms = 5 * ET_MS;
            world.hit(Fault::Blackout { down_ms })?;
            pass(world, down_ms)?;
            let (leader, after) = agree(world, &places)?;
            assert!(after > before, "term {after} after term {before}");
            let found = held(world, leader, "acknowledged");
            assert_eq!(found.as_deref(), Some("value"));
            Ok(())
        });
    }
}
