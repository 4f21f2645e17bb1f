//! Crashes at every storage call, with every or many mixes of what was not synced.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Instant;

use raft_log::fs::{Fs, SimFs, Unit, UnitFate, is_stopped};
use raft_log::{CreateError, IoFault, OpenError, Options, Wal};
use support::random::Random;
use support::{BINDING, Model, Step, Subject, append, budget, dir, open, recovered, small};

/// Every operation, with rotation, cuts inside and across segments, and a snapshot install.
fn script() -> Vec<Step> {
    let entries = |term, count| Step::Append(vec![(term, 1500); count]);
    vec![
        Step::HardState(1, Some(3)),
        entries(1, 1),
        entries(1, 2),
        Step::Prepare,
        // Over the end of the first segment, in one group.
        entries(2, 4),
        Step::HardState(2, None),
        Step::Append(vec![(2, 0), (2, 100), (2, 5), (2, 700)]),
        // Inside the tail; the leftover ends where the new entry will end.
        Step::Truncate(9),
        Step::Append(vec![(3, 100)]),
        Step::Kill,
        entries(3, 6),
        Step::Flush,
        // Back over a segment's border.
        Step::Truncate(5),
        entries(4, 2),
        Step::Truncate(6),
        entries(5, 1),
        Step::Reopen,
        entries(5, 9),
        Step::Purge(7),
        Step::Purge(12),
        entries(6, 1),
        Step::HardState(6, Some(1)),
        Step::Reset(40, 7),
        entries(7, 3),
        Step::Reset(43, 7),
        entries(8, 2),
        Step::Reopen,
    ]
}

/// Runs the script up to call `stop` of the storage.
fn run_until(seed: u64, stop: Option<u64>) -> Subject {
    let mut subject = Subject::new(SimFs::new(seed), small());
    if let Some(stop) = stop {
        subject.fs.stop_at_call(subject.fs.calls() + stop);
    }
    subject.run(&script());
    subject
}

fn calls_of_script(seed: u64) -> u64 {
    let subject = Subject::new(SimFs::new(seed), small());
    let before = subject.fs.calls();
    let after = run_until(seed, None);
    assert_eq!(
        after.interrupted.as_ref().map(|step| format!("{step:?}")),
        None
    );
    after.fs.calls() - before
}

/// Opens after a crash, compares, goes on writing, and opens once more: nothing dropped comes back.
fn check(fs: &SimFs, possible: &[Model], what: &str) {
    let options = small();
    let (mut wal, mut model) = match recovered(fs, &options) {
        Ok(found) => found,
        Err(error) => panic!("{what}: does not open: {error}"),
    };
    assert!(
        possible.contains(&model),
        "{what}: found {} possible {:?}",
        sketch(&model),
        possible.iter().map(sketch).collect::<Vec<_>>()
    );
    // What was found must not be in memory only.
    let fork = fs.fork();
    fork.power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
    match recovered(&fork, &options) {
        Ok((_, again)) => assert_eq!(
            sketch(&again),
            sketch(&model),
            "{what}: after losing what was not synced"
        ),
        Err(error) => panic!("{what}: does not open after losing what was not synced: {error}"),
    }
    // The same size as the entries of the script, so that leftovers lie where a record would.
    let (index, term) = (model.last_index() + 1, model.last_term().max(1));
    let payload = support::payload(index, term, 99, 1500);
    append(&mut wal, &[(index, term, payload.clone())])
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    wal.sync().unwrap();
    model.entries.insert(index, (term, payload));
    drop(wal);
    fs.crash_process();
    let (_, found) =
        recovered(fs, &options).unwrap_or_else(|error| panic!("{what}: second open: {error}"));
    assert_eq!(sketch(&found), sketch(&model), "{what}: after going on");
    assert!(found == model, "{what}: payloads differ after going on");
}

fn sketch(model: &Model) -> String {
    let terms: Vec<String> = model
        .entries
        .iter()
        .map(|(index, (term, _))| format!("{index}@{term}"))
        .collect();
    format!(
        "floor {:?} [{}] hard {:?}",
        model.floor,
        terms.join(" "),
        model.hard_state
    )
}

/// Case 17: the process dies before or in each storage call; everything acknowledged is there, nothing
/// truncated comes back.
#[test]
fn process_death_at_every_storage_call_loses_nothing_acknowledged() {
    let calls = calls_of_script(1);
    for stop in 1..=calls {
        let subject = run_until(1, Some(stop));
        subject.fs.crash_process();
        check(
            &subject.fs,
            &subject.possible(),
            &format!("seed 1, death at call {stop} of {calls}"),
        );
    }
}

/// Case 17: the power fails before or in each storage call. Every mix of unsynced units and names if they
/// are few, else random ones for as long as `RAFT_LOG_CRASH_SECONDS` allows.
#[test]
fn power_cut_at_every_storage_call_loses_nothing_acknowledged() {
    let (seed, calls) = (2, calls_of_script(2));
    let slice = budget() / u32::try_from(calls).unwrap();
    let (mut mixes, mut complete) = (0u64, 0u64);
    for stop in 1..=calls {
        let subject = run_until(seed, Some(stop));
        let possible = subject.possible();
        let space = Space::of(&subject.fs);
        let begin = Instant::now();
        let mut visited = 0;
        while visited < space.mixes && (visited < 4 || begin.elapsed() < slice) {
            let number = space.number(visited, stop);
            let fs = subject.fs.fork();
            space.cut(&fs, number);
            check(
                &fs,
                &possible,
                &format!("seed {seed}, power cut at call {stop} of {calls}, mix {number}"),
            );
            visited += 1;
        }
        mixes += visited;
        complete += u64::from(visited == space.mixes);
    }
    println!("seed {seed}: {calls} calls, {mixes} mixes, {complete} points complete");
}

/// Case 17: a second power cut at a random call of the recovery itself.
#[test]
fn power_cut_while_opening_after_a_power_cut_loses_nothing_acknowledged() {
    let (seed, calls) = (3, calls_of_script(3));
    let end = Instant::now() + budget();
    let mut random = Random(seed);
    for round in 0u64.. {
        if Instant::now() > end && round >= 50 {
            break;
        }
        let stop = 1 + random.next() % calls;
        let subject = run_until(seed, Some(stop));
        let fs = &subject.fs;
        Space::of(fs).cut(fs, random.next());
        let again = 1 + random.next() % 40;
        fs.stop_at_call(fs.calls() + again);
        match open(fs, &small()) {
            Ok(_) => fs.crash_process(),
            Err(OpenError::Io(IoFault { source, .. })) if is_stopped(&source) => {}
            Err(error) => panic!("round {round}: cut at {stop}: does not open: {error}"),
        }
        Space::of(fs).cut(fs, random.next());
        check(
            fs,
            &subject.possible(),
            &format!("seed {seed}, round {round}, cuts at call {stop} and {again}"),
        );
    }
}

/// Case 18: the process dies at a call of a rotation or a cut, and the power fails at a call of the next open. What that open
/// sees may be in memory only, names as well, and it must not store anywhere that it is there before it is.
#[test]
fn power_cut_while_opening_after_a_process_death_loses_nothing_acknowledged() {
    let fill = [Step::Append(vec![(1, 1500); 5]), Step::Flush];
    let rotate = [Step::Append(vec![(1, 1500); 2]), Step::Truncate(4)];
    let mut full = Subject::new(SimFs::new(6), small());
    full.run(&fill);
    let before = full.fs.calls();
    full.run(&rotate);
    for stop in 1..=full.fs.calls() - before {
        let mut subject = Subject::new(SimFs::new(6), small());
        subject.run(&fill);
        subject.fs.stop_at_call(subject.fs.calls() + stop);
        subject.run(&rotate);
        subject.fs.crash_process();
        for again in 1.. {
            let fs = subject.fs.fork();
            fs.stop_at_call(fs.calls() + again);
            let is_open = open(&fs, &small()).is_ok();
            for (names, fate) in [
                (false, UnitFate::Old),
                (false, UnitFate::New),
                (true, UnitFate::Old),
                (true, UnitFate::New),
            ] {
                let fs = fs.fork();
                fs.power_cut_with(&mut |_| names, &mut |_| fate);
                let what = format!("calls {stop} and {again}, names {names}, {fate:?}");
                check(&fs, &subject.possible(), &what);
            }
            if is_open {
                break;
            }
        }
    }
}

/// Case 18: a crash at any call of creating the directory leaves one that is refused as not created and
/// that a second attempt completes.
#[test]
fn creation_interrupted_anywhere_is_completed_by_the_next_attempt() {
    let fs = SimFs::new(4);
    support::create(&fs, &small());
    let calls = fs.calls();
    for stop in 1..=calls + 1 {
        for mix in 0..40 {
            let fs = SimFs::new(4);
            fs.stop_at_call(stop);
            let created = Wal::create(&fs, &dir(), BINDING, &small()).is_ok();
            Space::of(&fs).cut(&fs, mix);
            match open(&fs, &small()) {
                Ok(_) => {}
                Err(OpenError::NotCreated { .. }) => {
                    assert!(!created, "call {stop}, mix {mix}: creation was confirmed");
                    Wal::create(&fs, &dir(), BINDING, &small()).unwrap();
                }
                Err(error) => panic!("call {stop}, mix {mix}: {error}"),
            }
            fs.crash_process();
            check(
                &fs,
                &[Model::empty()],
                &format!("creation, call {stop}, mix {mix}"),
            );
            fs.crash_process();
            let again = Wal::create(&fs, &dir(), BINDING, &small());
            assert!(
                matches!(again, Err(CreateError::Exists { .. })),
                "call {stop}, mix {mix}"
            );
        }
    }
}

/// Case 18: rotation interrupted at each of its calls (allocate, zero, sync, rename, header, rename,
/// directory sync) needs no manual help and leaves neither gap nor duplicate.
#[test]
fn rotation_interrupted_anywhere_leaves_neither_gap_nor_duplicate() {
    let fill = [Step::Append(vec![(1, 1500); 5]), Step::Flush];
    let rotate = [Step::Append(vec![(1, 1500); 2])];
    let mut full = Subject::new(SimFs::new(5), small());
    full.run(&fill);
    let before = full.fs.calls();
    full.run(&rotate);
    let calls = full.fs.calls() - before;
    assert!(calls > 10, "the second batch needs a new segment");
    for stop in 1..=calls {
        let mut subject = Subject::new(SimFs::new(5), small());
        subject.run(&fill);
        subject.fs.stop_at_call(subject.fs.calls() + stop);
        subject.run(&rotate);
        let space = Space::of(&subject.fs);
        for visit in 0..space.mixes.min(60) {
            let fs = subject.fs.fork();
            let number = space.number(visit, stop);
            space.cut(&fs, number);
            check(
                &fs,
                &subject.possible(),
                &format!("rotation, call {stop} of {calls}, mix {number}"),
            );
        }
    }
}

/// Case 21: a crash at each call of voting; after it the log opens and never holds two votes of one term.
#[test]
fn voting_interrupted_anywhere_keeps_what_was_answered() {
    let votes = [
        Step::HardState(1, Some(1)),
        Step::HardState(1, Some(1)),
        Step::HardState(2, None),
        Step::HardState(2, Some(2)),
    ];
    let mut full = Subject::new(SimFs::new(6), small());
    full.run(&[Step::Flush]);
    let before = full.fs.calls();
    full.run(&votes);
    let calls = full.fs.calls() - before;
    for stop in 1..=calls {
        let mut subject = Subject::new(SimFs::new(6), small());
        subject.run(&[Step::Flush]);
        subject.fs.stop_at_call(subject.fs.calls() + stop);
        subject.run(&votes);
        let space = Space::of(&subject.fs);
        for mix in 0..space.mixes {
            let fs = subject.fs.fork();
            space.cut(&fs, mix);
            check(
                &fs,
                &subject.possible(),
                &format!("voting, call {stop} of {calls}, mix {mix}"),
            );
        }
    }
}

/// Locks go with the process, and open files of a dead process are of no use.
#[test]
fn simulated_process_death_releases_locks_and_stales_files() {
    let fs = SimFs::new(7);
    support::create(&fs, &small());
    let (mut wal, _) = open(&fs, &small()).unwrap();
    assert!(matches!(open(&fs, &small()), Err(OpenError::Locked { .. })));
    fs.crash_process();
    let (_second, _) = open(&fs, &small()).unwrap();
    let error = wal.set_hard_state(1, None).unwrap_err();
    assert!(support::stopped(&error), "{error}");
    assert!(matches!(open(&fs, &small()), Err(OpenError::Locked { .. })));
}

/// All ways in which a power cut can end now.
struct Space {
    /// Choices per unit, then two per name.
    choices: Vec<u64>,
    mixes: u64,
}

const MIXES_MAX: u64 = 1 << 40;

impl Space {
    fn of(fs: &SimFs) -> Space {
        let units = fs.unsynced_units();
        let mut choices: Vec<u64> = units
            .iter()
            .map(|unit| if unit.protected { 2 } else { 4 })
            .collect();
        choices.resize(units.len() + fs.unsynced_names(), 2);
        let mixes = choices
            .iter()
            .fold(1u64, |mixes, choices| (mixes * choices).min(MIXES_MAX));
        Space { choices, mixes }
    }

    /// All numbers in turn if they are few, random ones otherwise.
    fn number(&self, visit: u64, seed: u64) -> u64 {
        if self.mixes <= 4096 {
            visit
        } else {
            Random(seed << 20 ^ visit).next()
        }
    }

    /// Cuts the power with mix `number`; many choices draw their bits from it as from a seed.
    fn cut(&self, fs: &SimFs, number: u64) {
        let mut digits = Digits {
            rest: number,
            exact: self.mixes < MIXES_MAX,
            random: Random(number),
        };
        let mut fates = self
            .choices
            .iter()
            .map(|choices| digits.next(*choices))
            .collect::<Vec<_>>()
            .into_iter();
        let names = fs.unsynced_names();
        let mut keeps: Vec<bool> = Vec::new();
        let units = self.choices.len() - names;
        for choice in fates.as_slice()[units..].iter() {
            keeps.push(*choice == 1);
        }
        let mut fate = |unit: &Unit| match fates.next() {
            Some(choice) => UnitFate::ALL[choice as usize],
            None => panic!("no fate for {unit:?}"),
        };
        fs.power_cut_with(&mut |name| keeps[name], &mut fate);
    }
}

struct Digits {
    rest: u64,
    exact: bool,
    random: Random,
}

impl Digits {
    fn next(&mut self, base: u64) -> u64 {
        if !self.exact {
            return self.random.next() % base;
        }
        let digit = self.rest % base;
        self.rest /= base;
        digit
    }
}

/// The options of these tests are those of real logs in all but size.
#[test]
fn small_options_pass() {
    assert_eq!(small().check(), Ok(()));
    assert_eq!(Options::default().check(), Ok(()));
    assert_eq!(
        SimFs::new(0).list(std::path::Path::new("/")).unwrap(),
        Vec::<String>::new()
    );
}
