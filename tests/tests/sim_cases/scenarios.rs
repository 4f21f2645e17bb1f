//! The scenarios that every implementation of Raft is tried with, by number: docs/testing.md lists them with their tests.
//!
//! Most are played with every way to lose a node, and nobody asks anything but the test: so terms, leaders and indexes of the
//! log are known exactly.

mod commands;
mod elections;
mod followers;
mod members;
mod stops;

use bytes::Bytes;
use kvd::kv::command::{CommandResult, RangeQuery};
use kvd::wire::client::{Request, Response};
use kvd_sim::sim::{Fault, Place, Scenario, World};
use raft_core::{NodeId, Role};

use crate::shared::{ET_MS, Played, pass, put, wait, write};

/// Longer than any test goes on: what is lost for so long comes back when all is healed.
const FOR_GOOD_MS: u64 = u32::MAX as u64;
/// A lost node or leader is made up for within so long, in milliseconds.
const SOON_MS: u64 = 10 * ET_MS;
/// How long it is watched that something does not happen, in milliseconds.
const WATCHED_MS: u64 = 20 * ET_MS;

/// How a node gets lost. It comes back by itself after the given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Its process is killed.
    Killed,
    /// Its power goes.
    PowerCut,
    /// Nobody reaches it, and it reaches nobody.
    CutOff,
    /// Its process stands still, and goes on as if nothing had been.
    Frozen,
}

impl Loss {
    const ALL: [Loss; 4] = [Loss::Killed, Loss::PowerCut, Loss::CutOff, Loss::Frozen];

    /// Loses a node for so long.
    fn hit(self, world: &mut World, node: Place, ms: u64) -> Played {
        let down_ms = ms;
        world.hit(match self {
            Loss::Killed => Fault::Kill { node, down_ms },
            Loss::PowerCut => Fault::PowerCut { node, down_ms },
            Loss::CutOff => Fault::Isolate { node, ms },
            Loss::Frozen => Fault::Pause { node, ms },
        })
    }

    /// Whether the process of a lost node goes on and can say what it is.
    fn can_be_asked(self) -> bool {
        self == Loss::CutOff
    }
}

/// Nodes of which nobody asks anything.
fn quiet(seed: u64, nodes: usize) -> Scenario {
    Scenario {
        nodes,
        clients: 0,
        ..Scenario::new(seed)
    }
}

/// All machines of a world.
fn all(world: &World) -> Vec<Place> {
    (0..world.nodes()).collect()
}

/// All of these but one.
fn without(places: &[Place], lost: Place) -> Vec<Place> {
    places.iter().copied().filter(|it| *it != lost).collect()
}

fn role(world: &World, place: Place) -> Option<Role> {
    world.status(place).map(|status| status.role)
}

fn term(world: &World, place: Place) -> u64 {
    world.status(place).map_or(0, |status| status.term.0)
}

/// Whether one of these takes itself for the leader.
fn one_leads(world: &World, places: &[Place]) -> bool {
    places
        .iter()
        .any(|place| role(world, *place) == Some(Role::Leader))
}

/// The leader whom all others of these follow, in one term, if it is so. It has committed an entry of that term.
fn agreed(world: &World, places: &[Place]) -> Option<(Place, u64)> {
    let leads = |place: &Place| {
        let status = world.status(*place);
        status.is_some_and(|it| it.role == Role::Leader && it.own_term_committed)
    };
    let leader = places.iter().copied().find(leads)?;
    let (id, term) = (NodeId(leader as u64 + 1), term(world, leader));
    let follows = |place: &Place| {
        let status = world.status(*place);
        status.is_some_and(|it| {
            it.role == Role::Follower && it.leader == Some(id) && it.term.0 == term
        })
    };
    without(places, leader)
        .iter()
        .all(follows)
        .then_some((leader, term))
}

/// Goes on until these agree on a leader, which must be soon.
fn agree(world: &mut World, places: &[Place]) -> Played<(Place, u64)> {
    wait(world, SOON_MS, "one leader whom all follow", |it| {
        agreed(it, places).is_some()
    })?;
    Ok(agreed(world, places).expect("it was just seen"))
}

/// Goes on for so long and sees that these go on with this leader in this term, without any election.
fn stays(world: &mut World, places: &[Place], led: (Place, u64), ms: u64) -> Played {
    let elections = world.counts().elections;
    pass(world, ms)?;
    assert_eq!(agreed(world, places), Some(led), "{}", world.picture());
    assert_eq!(world.counts().elections, elections, "there was an election");
    Ok(())
}

/// Goes on for a while and sees that it does not become so.
fn never(world: &mut World, what: &str, is_so: impl Fn(&World) -> bool) -> Played {
    let became_so = world.run_until(WATCHED_MS * 1_000, is_so)?;
    assert!(!became_so, "{what}: {}", world.picture());
    Ok(())
}

/// Sets a key, in a session of its own, so that the asked node may repeat it.
fn set(key: &str, value: &str) -> Request {
    let bytes = key.bytes().chain([b'=']).chain(value.bytes());
    let name = bytes.fold(0, |name: u128, byte| {
        name.wrapping_mul(257) + u128::from(byte)
    });
    write(name, 1, &put(key, value))
}

/// What came of a write that was taken.
fn written(response: Response) -> CommandResult {
    if let Response::Written { result, .. } = response {
        return result;
    }
    panic!("a write was answered with {response:?}")
}

/// What a node itself holds under a key.
fn held(world: &World, place: Place, key: &str) -> Option<String> {
    let query = RangeQuery::key(Bytes::from(key.to_owned()));
    let found = world.store(place)?.query(&query);
    let item = found.items.first()?;
    Some(String::from_utf8_lossy(&item.value).into_owned())
}

/// Goes on until all of these hold it themselves, which must be soon.
fn hold(world: &mut World, places: &[Place], key: &str, value: &str) -> Played {
    wait(world, SOON_MS, "a value on all nodes", |it| {
        let held = |place: &Place| held(it, *place, key).as_deref() == Some(value);
        places.iter().all(held)
    })
}

/// Indexes of the committed entries in which a key is named.
fn indexes(world: &World, key: &str) -> Vec<u64> {
    let names = |payload: &[u8]| payload.windows(key.len()).any(|it| it == key.as_bytes());
    let committed = world.committed().iter();
    committed
        .filter(|entry| names(&entry.payload))
        .map(|entry| entry.index.0)
        .collect()
}
