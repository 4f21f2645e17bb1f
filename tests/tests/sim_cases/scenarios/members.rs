//! Several servers join or leave in one change, and the leader leaves.

use std::collections::BTreeSet;

use kvd_sim::sim::{Fault, Place, Scenario, Told, World};
use raft_core::{Configuration, EntryKind, NodeId, Role};

use super::{FOR_GOOD_MS, Loss, WATCHED_MS, agree, agreed, role, stays, term, without};
use crate::shared::{ET_MS, Played, pass, play, seeds, wait};

/// A cluster under writes, and machines beside it.
fn busy(seed: u64, nodes: usize, spares: usize) -> Scenario {
    Scenario {
        nodes,
        spares,
        clients: 2,
        rest_ms: 50,
        ..Scenario::new(seed)
    }
}

/// The configurations in the log, in the order in which they were committed.
fn configurations(world: &World) -> Vec<Configuration> {
    let committed = world.committed().iter();
    let changes = committed.filter(|entry| entry.kind == EntryKind::Configuration);
    let decoded = changes.map(|entry| Configuration::decode(&entry.payload));
    decoded
        .map(|it| it.expect("written by this program"))
        .collect()
}

fn ids(places: &[Place]) -> BTreeSet<NodeId> {
    let ids = places.iter().map(|place| NodeId(*place as u64 + 1));
    ids.collect()
}

fn bits(places: &[Place]) -> u32 {
    places.iter().fold(0, |bits, place| bits | 1 << place)
}

/// These vote.
fn voters(places: &[Place]) -> Configuration {
    Configuration::new(ids(places))
}

/// The way from some voters to others, in two steps of which the first is joint.
fn jointly(before: &[Place], after: &[Place]) -> [Configuration; 2] {
    let joint = Configuration {
        voters_outgoing: ids(before),
        auto_leave: true,
        ..voters(after)
    };
    [joint, voters(after)]
}

/// Goes on until a write is answered that began from now on. Clients ask any machine, also one that does not answer.
fn writes_go_on(world: &mut World) -> Played {
    let from = world.now();
    wait(world, 60 * ET_MS, "a write is answered", |it| {
        let calls = it.calls();
        let mut later = calls.iter().filter(|call| call.begun_us >= from);
        later.any(|call| matches!(call.told, Told::Written(_)))
    })
}

/// Two machines join five nodes; afterwards three of the seven may be lost. Whether both became voters in one step.
fn two_join(world: &mut World) -> Played<bool> {
    let founders: Vec<Place> = (0..5).collect();
    let (leader, _) = agree(world, &founders)?;
    pass(world, 1_000)?;
    let (add, remove) = (bits(&[5, 6]), 0);
    world.hit(Fault::Members { add, remove })?;
    let seven: Vec<Place> = (0..7).collect();
    wait(world, 60 * ET_MS, "all seven vote", |it| {
        configurations(it).last() == Some(&voters(&seven))
    })?;
    let led = agree(world, &seven)?;
    assert_eq!(led.0, leader, "leadership moved");
    let together = check_steps(&configurations(world), &founders, &seven);
    let mut rest = seven;
    for _ in 0..3 {
        let lost = without(&rest, leader)[0];
        Loss::Killed.hit(world, lost, FOR_GOOD_MS)?;
        rest = without(&rest, lost);
    }
    stays(world, &rest, led, WATCHED_MS)?;
    writes_go_on(world)?;
    Ok(together)
}

/// The new ones came in with one entry, and became voters together or one after the other. Which of the two.
fn check_steps(taken: &[Configuration], founders: &[Place], seven: &[Place]) -> bool {
    let new = &ids(seven) - &ids(founders);
    let first = Configuration {
        learners: new.clone(),
        ..voters(founders)
    };
    let (learners, rest) = taken.split_first().expect("there was a change");
    assert_eq!(*learners, first, "both come in with one entry");
    let one_by_one = new.iter().map(|id| {
        let mut middle = first.clone();
        middle.learners.remove(id);
        middle.voters.insert(*id);
        [middle, voters(seven)]
    });
    let together = rest == jointly(founders, seven);
    assert!(
        together || one_by_one.into_iter().any(|it| rest == it),
        "{rest:?}"
    );
    together
}

/// Scenario 20: two servers are added to five at once. The five have slow disks, so both have caught up when the first of them
/// could vote: they become voters in one step, through one joint configuration.
#[test]
fn two_servers_added_to_five_vote_after_one_joint_configuration() {
    for seed in seeds(12) {
        let (together, _) = play(&busy(seed, 5, 2), |world| {
            let founders = [0, 1, 2, 3, 4];
            let (leader, _) = agree(world, &founders)?;
            for node in without(&founders, leader) {
                let (sync_ms, ms) = (150, 60_000);
                world.hit(Fault::SlowDisk { node, sync_ms, ms })?;
            }
            two_join(world)
        });
        assert!(together, "they did not become voters together");
    }
}

/// Scenario 20, with disks as usual: a server that has caught up does not wait for the other, and all else is the same.
#[test]
fn servers_added_at_once_vote_as_soon_as_each_has_caught_up() {
    let count = seeds(12).filter(|seed| play(&busy(*seed, 5, 2), two_join).0);
    println!("{} times together", count.count());
}

/// Two of five are removed in one change, of which one hears nothing of it. The others go on as a cluster of three.
fn two_leave(world: &mut World, with_leader: bool) -> Played {
    let five: Vec<Place> = (0..5).collect();
    let (leader, before) = agree(world, &five)?;
    pass(world, 1_000)?;
    let deaf = (leader + 1) % 5;
    let other = if with_leader {
        leader
    } else {
        (leader + 2) % 5
    };
    Loss::CutOff.hit(world, deaf, WATCHED_MS)?;
    let (add, remove) = (0, bits(&[deaf, other]));
    world.hit(Fault::Members { add, remove })?;
    let three = without(&without(&five, deaf), other);
    wait(world, 10 * ET_MS, "three are left", |it| {
        configurations(it).last() == Some(&voters(&three))
    })?;
    assert_eq!(configurations(world), jointly(&five, &three));
    let led = agree(world, &three)?;
    assert_eq!(led == (leader, before), !with_leader, "{led:?} leads");
    pass(world, WATCHED_MS)?; // The one that was cut off is back, and stands for election in vain.
    stays(world, &three, led, WATCHED_MS)?;
    let lost = without(&three, led.0)[0];
    Loss::Killed.hit(world, lost, FOR_GOOD_MS)?;
    writes_go_on(world)?;
    stays(world, &without(&three, lost), led, WATCHED_MS)
}

/// Scenario 21: two servers are removed from five at once, through one joint configuration; two of the three that are left decide.
#[test]
fn two_servers_removed_at_once_leave_after_one_joint_configuration() {
    for seed in seeds(10) {
        play(&busy(seed, 5, 0), |world| two_leave(world, false));
    }
}

/// Scenarios 21 and 22: of the two servers that are removed at once one leads.
#[test]
fn leader_and_follower_removed_at_once_leave_after_one_joint_configuration() {
    for seed in seeds(10) {
        play(&busy(seed, 5, 0), |world| two_leave(world, true));
    }
}

/// The leader removes itself; the others have a leader soon, and the removed one never leads and raises no term.
fn leader_leaves(world: &mut World) -> Played {
    let places: Vec<Place> = (0..world.nodes()).collect();
    let (old, before) = agree(world, &places)?;
    pass(world, 1_000)?;
    world.hit(Fault::Remove { node: old })?;
    wait(world, 2 * ET_MS, "the leader steps down", |it| {
        role(it, old) != Some(Role::Leader)
    })?;
    let rest = without(&places, old);
    assert_eq!(configurations(world), [voters(&rest)]);
    wait(world, 3 * ET_MS, "another leads", |it| {
        agreed(it, &rest).is_some()
    })?;
    let led = agree(world, &rest)?;
    assert!(led.1 > before, "term {} after term {before}", led.1);
    stays(world, &rest, led, WATCHED_MS)?;
    assert_eq!(role(world, old), Some(Role::Follower));
    assert!(term(world, old) <= led.1, "it stood for election");
    writes_go_on(world)
}

/// Scenario 22: the leader removes itself: another one leads within three election timeouts, and is not disturbed by it.
#[test]
fn leader_that_is_removed_steps_down_and_disturbs_nobody() {
    for nodes in [3, 5] {
        for seed in seeds(12) {
            play(&busy(seed, nodes, 0), leader_leaves);
        }
    }
}
