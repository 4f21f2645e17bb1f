//! What the named simulations have in common.

use bytes::Bytes;

use kvd::kv::command::{Command, KeyRange, Op, RangeQuery, Txn, command_crc};
use kvd::kv::envelope::SessionRef;
use kvd::wire::client::{Consistency, Request, Response};
use kvd_sim::sim::{ELECTION_TIMEOUT_US, Figures, Place, Scenario, Timeline, Us, World, finish};
use kvd_sim::watch::Violation;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// An election timeout, in microseconds of the world.
pub(crate) const ET_US: Us = ELECTION_TIMEOUT_US;
/// The same, in milliseconds.
pub(crate) const ET_MS: u64 = ET_US / 1_000;
/// How long a node may keep a request made by hand, in milliseconds.
pub(crate) const TIMEOUT_MS: u32 = 2_000;

/// Seeds that are new with every run, beside the fixed ones. None: `sim_seeds` plays fresh ones, and some of these tests count
/// what a rare draw may make few of.
const FRESH_SEEDS: u64 = 0;

/// What is played can break a promise.
pub(crate) type Played<T = ()> = Result<T, Violation>;

/// The first `fixed` seeds, and a few that nobody has played before. `KVD_SIM_SEED=n` repeats one, `KVD_SIM_FRESH=n` draws more.
pub(crate) fn seeds(fixed: u64) -> impl Iterator<Item = u64> {
    let one = number("KVD_SIM_SEED");
    let fresh = number("KVD_SIM_FRESH").unwrap_or(FRESH_SEEDS);
    let fixed = one.map_or(0..fixed, |seed| seed..seed + 1);
    let fresh = if one.is_some() { 0 } else { fresh };
    fixed.chain((0..fresh).map(|_| u64::from(rand::random::<u32>())))
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

/// Whether the long forms are wanted.
pub(crate) fn is_long() -> bool {
    std::env::var("KVD_TEST_LONG").is_ok_and(|it| it == "1")
}

/// What a test draws by itself, apart from what its world draws.
pub(crate) fn draws(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x6361_7365)
}

/// The places in an order of chance.
pub(crate) fn shuffled(count: usize, rng: &mut StdRng) -> Vec<Place> {
    let mut places: Vec<Place> = (0..count).collect();
    for last in (1..count).rev() {
        places.swap(last, rng.random_range(0..=last));
    }
    places
}

/// Makes the world, lets the test act in it, then heals it and checks what is promised of every world. What the test returned,
/// and the figures of the whole run.
pub(crate) fn play<T>(
    scenario: &Scenario,
    act: impl FnOnce(&mut World) -> Played<T>,
) -> (T, Figures) {
    println!("{scenario}"); // Shown if an assertion of the test fails.
    let mut world = World::new(scenario, Timeline::off());
    let ended = act(&mut world).and_then(|it| Ok((it, finish(&mut world)?)));
    ended.unwrap_or_else(|violation| panic!("{violation}\n{}", world.picture()))
}

/// Lets the world go on for so long.
pub(crate) fn pass(world: &mut World, ms: u64) -> Played {
    world.run_to(world.now() + ms * 1_000)
}

/// Goes on until this holds, which must be within so many milliseconds of the world.
pub(crate) fn wait(
    world: &mut World,
    ms: u64,
    what: &'static str,
    done: impl Fn(&World) -> bool,
) -> Played {
    if world.run_until(ms * 1_000, done)? {
        return Ok(());
    }
    let text = format!("not within {ms} ms");
    Err(Violation { rule: what, text })
}

/// Goes on until there is a leader, for 10 election timeouts at most.
pub(crate) fn leader(world: &mut World) -> Played<Place> {
    wait(world, 10 * ET_MS, "a leader", |it| it.leader().is_some())?;
    Ok(world.leader().expect("it was just seen"))
}

/// Some node that does not lead.
pub(crate) fn follower(world: &mut World) -> Played<Place> {
    let leader = leader(world)?;
    Ok((leader + 1) % world.nodes())
}

/// The write of a client that repeats everything until it is answered.
pub(crate) fn write(name: u128, sequence: u64, command: &Command) -> Request {
    write_within(TIMEOUT_MS, name, sequence, command)
}

/// As [`write`], with a time of its own.
pub(crate) fn write_within(
    timeout_ms: u32,
    name: u128,
    sequence: u64,
    command: &Command,
) -> Request {
    let command = command.encode();
    Request::Write {
        session: SessionRef::Named(name),
        sequence,
        done_below: 1,
        crc: command_crc(&command),
        command,
        timeout_ms,
    }
}

/// Sets a key. A transaction of one step: a plain put would be taken for one that a client of the world must have asked for.
pub(crate) fn put(key: &str, value: &str) -> Command {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    let want_previous = false;
    let put = Op::Put {
        key,
        value,
        want_previous,
    };
    Txn {
        compare: Vec::new(),
        then: vec![put],
        otherwise: Vec::new(),
    }
    .into()
}

/// Adds one to a key.
pub(crate) fn increment(key: &str) -> Command {
    let key = Bytes::from(key.to_owned());
    Op::Increment { key, by: 1 }.into()
}

/// A read of everything.
pub(crate) fn read_all(consistency: Consistency) -> Request {
    Request::Read {
        consistency,
        query: RangeQuery::new(KeyRange::All),
        timeout_ms: TIMEOUT_MS,
    }
}

/// Asks a node that must be there, and waits for its answer until it must have given up.
pub(crate) fn ask(world: &mut World, place: Place, request: Request) -> Played<Response> {
    let number = world.probe(place, request)?.expect("its process runs");
    let ms = u64::from(TIMEOUT_MS) + ET_MS;
    wait(world, ms, "an answer in time", |it| {
        it.probed(number).is_some()
    })?;
    Ok(world.probed(number).expect("it was just seen").1.clone())
}

/// What is under a key, as all committed entries say.
pub(crate) fn value(world: &World, key: &str) -> Option<String> {
    let query = RangeQuery::key(Bytes::from(key.to_owned()));
    let found = world.replayed().query(&query);
    let item = found.items.first()?;
    Some(String::from_utf8_lossy(&item.value).into_owned())
}
