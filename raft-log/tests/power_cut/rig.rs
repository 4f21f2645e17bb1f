//! Rounds of writing, cutting the power and looking at what is left.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use raft_log::{Fs, OpenError, OsFs, Tail, Wal};
use rustix::process::Signal;
use tempfile::TempDir;

use super::account::{Account, State, Unfinished};
use super::disk::{Disk, format, persist_some};
use super::proof::prove;
use super::writer::Orders;
use crate::support::{BINDING, Model, Step, append, payload};
use crate::{AGAIN, ROLE, Random, sketch, skip};

/// Rounds, if nobody asks for a number, and the time after which no further one begins then.
const ROUNDS: u64 = 5;
const TIME_MAX: Duration = Duration::from_secs(15);
/// A writer that did not die in place of a sync is killed between these.
const LIFE_MIN_MS: u64 = 100;
const LIFE_MAX_MS: u64 = 700;
/// Salt of the entry that is appended to a recovered log; no script of a writer has it.
const CHECK_SALT: u64 = u64::MAX;

/// Proves that a cut loses what it must, and then cuts.
pub fn run_rounds() {
    let seed = number("RAFT_LOG_POWER_CUT_SEED").unwrap_or_else(|| OsFs.random_u64() >> 32);
    println!("\npower cuts on ext4: RAFT_LOG_POWER_CUT_SEED={seed}");
    let mut rig = Rig {
        work: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        random: Random(seed),
        left: None,
        tally: Tally::default(),
    };
    let proof = rig.work.path().join("proof.img");
    // Whether all of this is allowed here is known only by doing it. From the next time on it must work.
    match format(&proof).and_then(|()| Disk::mount(&proof, &rig.work.path().join("proof"))) {
        Ok(disk) => prove(&disk, rig.work.path()),
        Err(missing) => return skip(&missing),
    }
    let asked = number("RAFT_LOG_POWER_CUTS");
    let begun = Instant::now();
    for _ in 0..asked.unwrap_or(ROUNDS) {
        rig.round();
        if asked.is_none() && begun.elapsed() > TIME_MAX {
            break;
        }
    }
    println!("{}", rig.tally.summary());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[derive(Debug)]
struct Rig {
    work: TempDir,
    random: Random,
    left: Option<Left>,
    tally: Tally,
}

/// Images after a cut.
#[derive(Debug)]
struct Cut {
    /// As the power cut left it, with the log not opened since.
    as_cut: PathBuf,
    /// Where the log was opened and written on.
    recovered: PathBuf,
}

/// What a round leaves for the next.
#[derive(Debug)]
struct Left {
    cut: Cut,
    /// What the log held when it was opened first.
    found: State,
    /// And what it held in the end.
    written_on: State,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.work.disable_cleanup(true);
            let (round, kept) = (self.tally.rounds, self.work.path().display());
            // Nobody may listen any more, and that must not end the clearing up.
            let _ = writeln!(
                std::io::stdout(),
                "images of round {round} are kept in {kept}"
            );
        }
    }
}

impl Rig {
    /// One life of a disk: written to, cut off, looked at.
    fn round(&mut self) {
        self.tally.rounds += 1;
        let place = self.place(self.tally.rounds);
        std::fs::create_dir(&place).unwrap();
        let (image, start) = self.start(&place);
        let disk = Disk::mount(&image, &place.join("live")).unwrap();
        let (orders, account) = self.let_write(&disk, start);
        let cut = Cut {
            as_cut: place.join("as-cut.img"),
            recovered: place.join("recovered.img"),
        };
        self.cut(&disk, &cut.as_cut, &place);
        drop(disk);
        std::fs::copy(&cut.as_cut, &cut.recovered).unwrap();
        let recovered = Disk::mount(&cut.recovered, &place.join("recovered")).unwrap();
        let found = self.look(&recovered, &orders, &account);
        let written_on = write_on(&recovered, &orders, &account, &found);
        drop(recovered);
        if self.tally.rounds > 1 {
            std::fs::remove_dir_all(self.place(self.tally.rounds - 1)).unwrap();
        }
        self.left = Some(Left {
            cut,
            found,
            written_on,
        });
    }

    /// Where the images of a round are; those of the last one are needed until the next is over.
    fn place(&self, round: u64) -> PathBuf {
        self.work.path().join(format!("round-{round}"))
    }

    /// The image that a round begins with, and what the log there holds.
    fn start(&mut self, place: &Path) -> (PathBuf, State) {
        match self.left.take().filter(|_| !self.random.one_in(4)) {
            None => {
                self.tally.fresh += 1;
                let image = place.join("fresh.img");
                format(&image).unwrap();
                (image, None)
            }
            // Nobody has recovered this log yet, and the next cut may come while it is being recovered.
            Some(left) if !self.random.one_in(3) => {
                self.tally.as_cut += 1;
                (left.cut.as_cut, left.found)
            }
            Some(left) => (left.cut.recovered, left.written_on),
        }
    }

    fn orders(&mut self, disk: &Disk) -> Orders {
        let random = &mut self.random;
        // While the log is being opened, right after, when what was found may be durable only because it was made so,
        // or later; or by the clock.
        let never = u64::MAX;
        let (syncs, syncs_once_open) = match random.below(5) {
            0 => (1 + random.below(12), never),
            1 => (never, 1 + random.below(3)),
            2 | 3 => (never, 1 + random.below(150)),
            _ => (never, never),
        };
        Orders {
            dir: disk.log(),
            seed: random.below(1 << 32),
            segment_bytes: (16 << 10) << random.below(3),
            prepares_ahead: random.one_in(2),
            syncs,
            syncs_once_open,
        }
    }

    /// Lets writers write until they die. Only with the last one the power goes: until then each finds in memory
    /// what the disk may lack.
    fn let_write(&mut self, disk: &Disk, start: State) -> (Orders, Account) {
        let mut states = vec![start];
        loop {
            let orders = self.orders(disk);
            let account = self.let_one_write(&orders, states);
            if self.random.one_in(2) {
                return (orders, account);
            }
            self.tally.deaths += 1;
            states = account.possible();
        }
    }

    fn let_one_write(&mut self, orders: &Orders, states: Vec<State>) -> Account {
        let life = LIFE_MIN_MS + self.random.below(LIFE_MAX_MS - LIFE_MIN_MS);
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(AGAIN)
            .env(ROLE, orders.encode())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = writer.stdout.take().unwrap();
        let (heard, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            stdout.read_to_end(&mut said).expect("a pipe is readable");
            heard.send(said).expect("somebody waits for it");
        });
        let said = hears
            .recv_timeout(Duration::from_millis(life))
            .unwrap_or_else(|_| {
                self.tally.by_clock += 1;
                writer.kill().unwrap();
                hears.recv().unwrap()
            });
        let status = writer.wait().unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "the writer failed by itself: {status}\n{said}"
        );
        let account = Account::of(&said, states, orders);
        self.tally.steps += account.steps;
        self.tally.never_open += u64::from(!account.opened);
        account
    }

    /// Copies what the disk holds, and some of what it may hold besides.
    fn cut(&mut self, disk: &Disk, as_cut: &Path, place: &Path) {
        if self.random.one_in(3) {
            self.tally.commits += 1;
            disk.commit_journal();
        }
        disk.copy_as_cut(as_cut);
        let cut = Disk::mount(as_cut, &place.join("as-cut")).unwrap();
        let (written, lost) = persist_some(&disk.log(), &cut.log(), &mut self.random);
        self.tally.units_written += written;
        self.tally.units_lost += lost;
    }

    /// Opens the log and compares.
    fn look(&mut self, disk: &Disk, orders: &Orders, account: &Account) -> State {
        let found = match Wal::open(&OsFs, &disk.log(), BINDING, orders.options()) {
            Ok((wal, opened)) => {
                self.tally.torn += u64::from(matches!(opened.tail, Tail::TornDropped { .. }));
                let model = Model::of(&wal);
                assert_eq!(
                    (opened.floor, opened.last_index),
                    (model.floor, model.last_index())
                );
                assert_eq!((opened.term, opened.vote), model.hard_state);
                Some(model)
            }
            Err(OpenError::NotCreated { .. }) => None,
            Err(error) => panic!("after a power cut the log does not open: {error}\n{account}"),
        };
        let possible = account.possible();
        let place = possible.iter().rposition(|state| *state == found);
        let tell = |state: &State| state.as_ref().map_or("no log".to_owned(), sketch);
        let place = place.unwrap_or_else(|| {
            let possible = possible.iter().map(tell).collect::<Vec<_>>().join("\n  ");
            panic!(
                "found\n  {}\npossible\n  {possible}\n{account}",
                tell(&found)
            )
        });
        let fate = match place {
            _ if possible.len() == 1 => "nothing unfinished",
            0 => "unfinished and not there",
            _ if place + 1 == possible.len() => "unfinished and all there",
            _ => "unfinished and partly there",
        };
        println!(
            "round {}: {} acknowledged, {fate}; {}",
            self.tally.rounds,
            account.steps,
            tell(&found)
        );
        *self.tally.fates.entry(fate).or_default() += 1;
        found
    }
}

/// Appends to the recovered log, and opens it once more: nothing that was dropped comes back.
fn write_on(disk: &Disk, orders: &Orders, account: &Account, found: &State) -> State {
    let mut model = found.clone()?;
    // As large as the entry that was perhaps lost, so that leftovers lie where a record would.
    let bytes = match &account.unfinished {
        Some(Unfinished::Step(_, Step::Append(sizes))) => sizes[0].1,
        Some(_) | None => 300,
    };
    let (index, term) = (model.last_index() + 1, model.last_term().max(1));
    let payload = payload(index, term, CHECK_SALT, bytes);
    let open = || {
        Wal::open(&OsFs, &disk.log(), BINDING, orders.options())
            .expect("it opened before")
            .0
    };
    let mut wal = open();
    append(&mut wal, &[(index, term, payload.clone())]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    model.entries.insert(index, (term, payload));
    assert_eq!(
        sketch(&Model::of(&open())),
        sketch(&model),
        "after going on"
    );
    Some(model)
}

/// What happened.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    fresh: u64,
    as_cut: u64,
    steps: u64,
    deaths: u64,
    by_clock: u64,
    never_open: u64,
    commits: u64,
    units_written: u64,
    units_lost: u64,
    torn: u64,
    fates: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn summary(&self) -> String {
        let Tally {
            rounds,
            fresh,
            as_cut,
            steps,
            deaths,
            by_clock,
            never_open,
            commits,
            units_written,
            units_lost,
            torn,
            fates,
        } = self;
        let recovered = rounds - fresh - as_cut;
        let in_sync = rounds + deaths - by_clock;
        let fates: Vec<String> = fates
            .iter()
            .map(|(fate, count)| format!("{count} {fate}"))
            .collect();
        let fates = fates.join(", ");
        format!(
            "{rounds} rounds, {steps} steps acknowledged, nothing lost and nothing made up\n  \
            begun with: {fresh} fresh images, {as_cut} as cut, {recovered} recovered\n  \
            died: {deaths} writers before the last of their round; {by_clock} by the clock, {in_sync} in place of a sync, {never_open} before the log was open\n  \
            not synced: {units_written} units of 512 bytes there and {units_lost} not, {commits} commits of the journal\n  \
            found: {torn} torn tails, {fates}"
        )
    }
}
