//! Stores that differ: who finds out, who leaves service, and how all become equal again.

use kvd::wire::client::{Consistency, Refusal, Response};
use kvd_sim::sim::{Fault, Place, Scenario, World};

use crate::shared::{Played, follower, leader, pass, play, put, read_all, seeds, wait, write};

/// How long a test may take to get to its point, in milliseconds of the world.
const LONG_MS: u64 = 30_000;

/// A cluster that nobody but the test writes to: reads of a client could meet the value that is wrong.
fn quiet(seed: u64) -> Scenario {
    Scenario {
        clients: 0,
        ..Scenario::new(seed)
    }
}

/// Writes two keys that nobody touches any more.
fn begin(world: &mut World) -> Played<Writer> {
    let mut writer = Writer { sequence: 0 };
    for key in ["cold", "colder"] {
        writer.write(world, key)?;
    }
    wait(world, 5_000, "all have the two keys", World::is_level)?;
    Ok(writer)
}

struct Writer {
    sequence: u64,
}

impl Writer {
    fn write(&mut self, world: &mut World, key: &str) -> Played {
        self.write_or(world, key, |_| false)
    }

    /// Writes, and waits for the answer or until this holds.
    fn write_or(&mut self, world: &mut World, key: &str, done: impl Fn(&World) -> bool) -> Played {
        let sequence = self.sequence + 1;
        let value = format!("value {sequence}");
        let request = write(0xc01d, sequence, &put(key, &value));
        wait(world, LONG_MS, "a leader", |it| {
            it.leader().is_some() || done(it)
        })?;
        let Some(leader) = world.leader() else {
            return Ok(());
        };
        let number = world.probe(leader, request)?.expect("its process runs");
        wait(world, LONG_MS, "an answer", |it| {
            it.probed(number).is_some() || done(it)
        })?;
        match world.probed(number).map(|(_, answer)| answer) {
            Some(Response::Written { .. }) => self.sequence = sequence,
            // The leader may leave service with the write in its hands; it is repeated.
            Some(answer) => {
                assert!(matches!(answer, Response::Refused(_)), "{answer:?}");
                world.run_until(50_000, &done)?;
            }
            // Its outcome is not awaited; the next write is the same.
            None => {}
        }
        Ok(())
    }

    /// Writes until this holds.
    fn write_until(
        &mut self,
        world: &mut World,
        what: &'static str,
        done: impl Fn(&World) -> bool,
    ) -> Played {
        let until = world.now() + LONG_MS * 1_000;
        while !done(world) && world.now() < until {
            self.write_or(world, "hot", &done)?;
        }
        wait(world, 1, what, done)
    }

    /// Writes so many values more.
    fn write_some(&mut self, world: &mut World, count: u64) -> Played {
        let until = self.sequence + count;
        while self.sequence < until {
            self.write(world, "hot")?;
        }
        Ok(())
    }
}

fn alarm(world: &World, place: Place) -> Option<String> {
    world.node_status(place)?.state_hash.alarm
}

fn is_rebuilding(world: &World, place: Place) -> bool {
    alarm(world, place).is_some_and(|alarm| alarm.contains("is being rebuilt"))
}

/// The node answers no question from its state.
fn check_out_of_service(world: &mut World, place: Place) -> Played {
    for consistency in [Consistency::Local, Consistency::Linearizable] {
        let number = world.probe(place, read_all(consistency))?;
        let number = number.expect("its process runs");
        let answered = world.probed(number).map(|(_, response)| response);
        assert!(
            matches!(
                answered,
                Some(Response::Refused(
                    Refusal::NoLeader { .. } | Refusal::NotLeader { .. }
                ))
            ),
            "n{} answers {answered:?}",
            place + 1
        );
    }
    Ok(())
}

/// Writes until the node has noticed, and then until it serves again.
fn notice_and_rebuild(world: &mut World, writer: &mut Writer, place: Place) -> Played {
    assert!(world.rot_value(place, "cold"));
    let agreed = world.agreed_hashes().len();
    writer.write_until(world, "it notices", |it| is_rebuilding(it, place))?;
    let positions = world.agreed_hashes().len() - agreed;
    assert!(positions <= 2, "noticed after {positions} positions");
    check_out_of_service(world, place)?;
    writer.write_until(world, "it serves again", |it| alarm(it, place).is_none())?;
    Ok(())
}

#[test]
fn replicas_compare_themselves_in_ordinary_worlds() {
    let mut positions = 0;
    for seed in seeds(10) {
        let (agreed, _) = play(&Scenario::new(seed), |world| {
            pass(world, 10_000)?;
            Ok(world.agreed_hashes())
        });
        positions += agreed.len();
    }
    assert!(positions >= 20, "{positions} positions in all");
}

#[test]
fn follower_whose_value_rots_notices_and_is_rebuilt() {
    for seed in seeds(20) {
        play(&quiet(seed), |world| {
            let mut writer = begin(world)?;
            let node = follower(world)?;
            writer.write_some(world, seed % 40)?;
            notice_and_rebuild(world, &mut writer, node)
        });
    }
}

/// It leads again if it was rebuilt before the hand-over, which is rare, or is elected later.
#[test]
fn leader_whose_value_rots_hands_over_and_is_rebuilt() {
    let mut handed_over = 0;
    for seed in seeds(20) {
        let (left, _) = play(&quiet(seed), |world| {
            let mut writer = begin(world)?;
            writer.write_some(world, seed % 40)?;
            let node = leader(world)?;
            notice_and_rebuild(world, &mut writer, node)?;
            Ok(leader(world)? != node)
        });
        handed_over += u32::from(left);
    }
    assert!(handed_over >= 15, "{handed_over} hand-overs");
}

/// Without a majority nobody can say who is right: an alarm, and nobody rebuilds.
#[test]
fn three_that_all_differ_raise_the_alarm_and_nobody_rebuilds() {
    for seed in seeds(10) {
        let mut world = World::new(&quiet(seed), kvd_sim::sim::Timeline::off());
        let world = &mut world;
        let played = (|| {
            let mut writer = begin(world)?;
            let leader = leader(world)?;
            let others = [(leader + 1) % 3, (leader + 2) % 3];
            assert!(world.rot_value(others[0], "cold"));
            assert!(world.rot_value(others[1], "colder"));
            let before = world.agreed_hashes().len();
            writer.write_some(world, 70)?;
            wait(world, 2_000, "an alarm", |it| {
                alarm(it, leader).is_some_and(|text| text.contains("no majority"))
            })?;
            pass(world, 5_000)?;
            assert_eq!(world.agreed_hashes().len(), before);
            for place in 0..3 {
                assert!(!is_rebuilding(world, place), "n{}", place + 1);
            }
            Ok::<_, kvd_sim::watch::Violation>(())
        })();
        played.unwrap_or_else(|violation| panic!("seed {seed}: {violation}\n{}", world.picture()));
    }
}

/// The mark is on the disk before anything is replaced, whenever the power goes: the node comes back out of service, or with a
/// state that is right.
#[test]
fn power_cuts_while_the_state_is_rebuilt() {
    let mut cuts = 0;
    for seed in seeds(40) {
        let (cut, _) = play(&quiet(seed), |world| {
            let mut writer = begin(world)?;
            let node = follower(world)?;
            assert!(world.rot_value(node, "cold"));
            writer.write_until(world, "it notices", |it| is_rebuilding(it, node))?;
            let (calls, down_ms) = (1 + seed, 100);
            world.hit(Fault::PowerCutAtCall {
                node,
                calls,
                down_ms,
            })?;
            let before = world.counts().power_cuts;
            for _ in 0..20 {
                writer.write(world, "hot")?;
                pass(world, 50)?;
            }
            writer.write_until(world, "it serves again", |it| {
                it.node_status(node).is_some() && alarm(it, node).is_none()
            })?;
            Ok(world.counts().power_cuts - before)
        });
        cuts += cut;
    }
    assert!(cuts >= 30, "{cuts} power cuts");
}
