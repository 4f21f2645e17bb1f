//! Snapshots: on their way to nodes that are slow, die, or lose power while they install one.

use std::collections::BTreeSet;

use kvd::kv::limits::StoreLimits;
use kvd::kv::store::Store;
use kvd_sim::sim::{Fault, OnItsWay, Place, Scenario, World};
use raft_core::EntryKind;

use crate::shared::{Played, follower, is_long, leader, pass, play, seeds, wait};

/// Log entries that a test may play through to get to its point, in milliseconds of the world.
const LONGEST_MS: u64 = 30_000;

/// So many writes and so small a log that whoever is away for a moment needs a snapshot.
fn compacting(seed: u64) -> Scenario {
    Scenario {
        rest_ms: 20,
        keys: 60,
        snapshot_bytes: 6 << 10,
        ..Scenario::new(seed)
    }
}

/// A follower is away until the others have discarded what it lacks.
fn fall_behind(world: &mut World) -> Played<Place> {
    let node = follower(world)?;
    pass(world, 1_500)?;
    let ms = u64::from(u32::MAX);
    world.hit(Fault::Kill { node, down_ms: ms })?;
    let last = world.committed().len() as u64;
    wait(world, LONGEST_MS, "the others have compacted", |it| {
        let living = (0..it.nodes()).filter_map(|place| it.status(place));
        living.into_iter().all(|status| status.first.0 > last + 1)
    })?;
    Ok(node)
}

/// The snapshot on its way to a node, if there is one.
fn coming(world: &World, to: Place) -> Option<OnItsWay> {
    world.on_their_way().into_iter().find(|it| it.to == to)
}

fn wait_for_transfer(world: &mut World, to: Place) -> Played<OnItsWay> {
    wait(world, LONGEST_MS, "a snapshot is sent", |it| {
        coming(it, to).is_some()
    })?;
    Ok(coming(world, to).expect("it was just seen"))
}

/// The state of a node is that of a replay of all entries up to the one it applied last.
fn check_whole(world: &World, place: Place) {
    let Some(store) = world.store(place) else {
        return;
    };
    let mut replayed = Store::new(StoreLimits::default());
    let applied = usize::try_from(store.applied_index()).expect("a log in memory");
    for entry in &world.committed()[..applied] {
        if entry.kind == EntryKind::Command {
            replayed.apply(entry.index.0, &entry.payload);
        } else {
            replayed.skip(entry.index.0);
        }
    }
    assert_eq!(
        store.hash(),
        replayed.hash(),
        "n{} after entry {applied}",
        place + 1
    );
}

/// A follower that came back takes a snapshot; its power goes at the given storage call from then on. Whether it went.
fn lose_power_installing(world: &mut World, calls: u64) -> Played<bool> {
    let node = fall_behind(world)?;
    world.start_now(node)?;
    wait_for_transfer(world, node)?;
    let (cuts, down_ms) = (world.counts().power_cuts, 100);
    world.hit(Fault::PowerCutAtCall {
        node,
        calls,
        down_ms,
    })?;
    world.run_until(LONGEST_MS * 100, |it| it.counts().power_cuts > cuts)?;
    let cut = world.counts().power_cuts > cuts;
    wait(world, 1_000, "it starts again", |it| {
        it.store(node).is_some()
    })?;
    check_whole(world, node);
    wait(world, LONGEST_MS, "it goes on", |it| {
        it.store(node)
            .is_some_and(|store| store.applied_index() > 0)
    })?;
    check_whole(world, node);
    Ok(cut)
}

/// Case 33: the power goes at any storage call while a follower takes, installs and goes on from a snapshot: what it has applied
/// is whole after each.
#[test]
fn power_cut_at_any_call_of_an_installation_leaves_a_whole_state() {
    // All of them in the long form; otherwise every third, from another one in each run.
    let (step, first) = if is_long() {
        (1, 1)
    } else {
        (4, 1 + rand::random::<u64>() % 4)
    };
    let mut cuts = 0;
    for calls in (first..60).step_by(step) {
        println!("at call {calls}");
        let (cut, _) = play(&compacting(33), |world| lose_power_installing(world, calls));
        cuts += u32::from(cut);
    }
    assert!(cuts >= 10, "power went only {cuts} times");
}

/// Case 34: a follower with a slow disk and a slow link comes back under load, while the leader goes on compacting: it catches up,
/// with few snapshots, and the leader's log stays short.
#[test]
fn slow_follower_catches_up_while_the_leader_compacts() {
    for seed in seeds(3) {
        let scenario = Scenario {
            clients: 6,
            keys: 300,
            snapshot_piece_ms: 30,
            snapshot_bytes: 24 << 10,
            ..compacting(seed)
        };
        play(&scenario, |world| {
            let node = fall_behind(world)?;
            let (sync_ms, ms) = (40, 120_000);
            world.hit(Fault::SlowDisk { node, sync_ms, ms })?;
            world.start_now(node)?;
            let back_us = world.now();
            let (mut transfers, mut longest) = (BTreeSet::new(), 0);
            while !has_caught_up(world, node) {
                let waited_us = world.now() - back_us;
                assert!(
                    waited_us < 60_000_000,
                    "not within a minute: {}",
                    world.picture()
                );
                pass(world, 5)?;
                transfers.extend(coming(world, node).map(|it| it.number));
                longest = longest.max(longest_log(world));
            }
            let tens = 1 + (world.now() - back_us) / 10_000_000;
            println!(
                "{} snapshots in {} ms, logs of {longest}",
                transfers.len(),
                (world.now() - back_us) / 1_000
            );
            assert!(
                transfers.len() as u64 <= tens,
                "{} snapshots",
                transfers.len()
            );
            // An entry is not smaller than 100 bytes, and the log must keep within 256 KiB.
            assert!(longest < 2_600, "a log of {longest} entries");
            Ok(())
        });
    }
}

/// The node has applied all but what is on its way.
fn has_caught_up(world: &World, node: Place) -> bool {
    let applied = world.store(node).map_or(0, |store| store.applied_index());
    applied + 20 >= world.committed().len() as u64
}

fn longest_log(world: &World) -> u64 {
    let logs = (0..world.nodes()).filter_map(|place| world.status(place));
    let lengths = logs.map(|status| status.last.index.0 + 1 - status.first.0);
    lengths.max().unwrap_or_default()
}

/// Who dies in the middle of a transfer.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Sender,
    Receiver,
}

/// Goes on until so many pieces have arrived; none if the transfer was over before.
fn wait_for_piece(world: &mut World, to: Place, pieces: usize) -> Played<Option<OnItsWay>> {
    let begun = wait_for_transfer(world, to)?;
    while let Some(now) = coming(world, to) {
        if now.number != begun.number {
            break;
        }
        if begun.pieces_left - now.pieces_left >= pieces {
            return Ok(Some(now));
        }
        pass(world, 1)?;
    }
    Ok(None)
}

/// One end of a transfer dies after so many pieces. Whether it came so far.
fn interrupt(world: &mut World, pieces: usize, victim: Victim) -> Played<bool> {
    let to = fall_behind(world)?;
    world.start_now(to)?;
    let Some(transfer) = wait_for_piece(world, to, pieces)? else {
        return Ok(false);
    };
    let before = world.store(to).expect("it lives").applied_index();
    let node = match victim {
        Victim::Sender => transfer.from,
        Victim::Receiver => to,
    };
    world.hit(Fault::Kill { node, down_ms: 50 })?;
    assert_eq!(
        coming(world, to),
        None,
        "a transfer outlived one of its ends"
    );
    wait(world, 1_000, "it starts again", |it| {
        it.store(node).is_some()
    })?;
    let status = world.status(to).expect("it lives");
    let is_complete = transfer.pieces_left == 0;
    assert!(
        is_complete
            || status.applied.0 == before && status.snapshot.is_none_or(|it| it.index.0 <= before),
        "a part of snapshot {} is visible: {status}",
        transfer.index,
    );
    check_whole(world, to);
    wait(world, LONGEST_MS, "it catches up", |it| {
        has_caught_up(it, to)
    })?;
    check_whole(world, to);
    Ok(true)
}

fn interrupt_at_each_piece(victim: Victim) {
    let mut interrupted = 0;
    for pieces in 0.. {
        println!("{victim:?} dies after {pieces} pieces");
        let (did, _) = play(&compacting(35), |world| interrupt(world, pieces, victim));
        if !did {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted >= 2, "{victim:?}: only {interrupted} pieces");
}

/// Case 35: the sender of a snapshot dies after each of its pieces: no part of it is visible, and the follower gets a whole one.
#[test]
fn sender_that_dies_at_any_piece_leaves_no_part_of_a_snapshot() {
    interrupt_at_each_piece(Victim::Sender);
}

/// Case 35: the receiver of a snapshot dies after each of its pieces: no part of it is visible, and it gets a whole one.
#[test]
fn receiver_that_dies_at_any_piece_leaves_no_part_of_a_snapshot() {
    interrupt_at_each_piece(Victim::Receiver);
}

/// Case 35: leadership moves while a snapshot is on its way: the follower catches up from the new leader.
#[test]
fn new_leader_during_a_transfer_sends_what_is_missing() {
    let mut moved = 0;
    for seed in seeds(4) {
        let scenario = Scenario {
            snapshot_piece_ms: 60,
            ..compacting(seed)
        };
        play(&scenario, |world| {
            let to = fall_behind(world)?;
            world.start_now(to)?;
            let transfer = wait_for_transfer(world, to)?;
            let third = (0..world.nodes()).find(|it| ![to, transfer.from].contains(it));
            world.hit(Fault::Transfer {
                to: third.expect("three nodes"),
            })?;
            let until = world.now() + 60_000_000;
            while !has_caught_up(world, to) && world.now() < until {
                pass(world, 5)?;
                check_whole(world, to);
                if world.leader() == third && coming(world, to).is_some() {
                    moved += 1;
                }
            }
            assert!(has_caught_up(world, to), "{}", world.picture());
            leader(world).map(|_| ())
        });
    }
    assert!(
        moved > 0,
        "no transfer was under way when leadership had moved"
    );
}
