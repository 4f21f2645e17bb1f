//! The thread that keeps spare segments ready.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use raft_log::fs::SimFs;
use raft_log::{Options, PreparerThread, Wal, WalError};
use support::{BINDING, dir, small};

const EIO: i32 = 5;
const DEADLINE: Duration = Duration::from_secs(60);

fn open(fs: &SimFs, options: &Options) -> Wal<SimFs> {
    Wal::create(fs, &dir(), BINDING, options).unwrap();
    Wal::open(fs, &dir(), BINDING, options.clone()).unwrap().0
}

/// A preparer thread, and what it says.
fn started(wal: &Wal<SimFs>) -> (PreparerThread, Receiver<String>) {
    let (tell, told) = channel();
    let spares = PreparerThread::start(wal.preparer(), move |result| {
        // Once the test has heard enough it listens no more.
        let _ = tell.send(match result {
            Ok(made) => made.to_string(),
            Err(WalError::NoSpace { .. }) => "full".to_owned(),
            Err(error) => error.to_string(),
        });
    });
    (spares.unwrap(), told)
}

#[test]
fn preparer_thread_prepares_at_the_start_and_when_little_is_left() {
    let fs = SimFs::new(10);
    let options = Options {
        spare_segments: 2,
        ..small()
    };
    let mut wal = open(&fs, &options);
    let (spares, told) = started(&wal);
    let hear = || told.recv_timeout(DEADLINE).unwrap();
    assert_eq!([hear(), hear(), hear()], ["true", "true", "false"]);
    spares.top_up(wal.prepared_bytes());
    for index in 1..=11 {
        let payload = support::payload(index, 1, 0, 1500);
        support::append(&mut wal, &[(index, 1, payload)]).unwrap();
        wal.sync().unwrap();
    }
    spares.top_up(wal.prepared_bytes());
    assert_eq!([hear(), hear(), hear()], ["true", "true", "false"]);
    spares.stop().unwrap();
    assert!(told.recv().is_err(), "nothing was prepared unasked");
}

#[test]
fn preparer_thread_tries_again_until_there_is_room() {
    let fs = SimFs::new(11);
    let wal = open(&fs, &small());
    fs.set_capacity(Some(8192));
    let (spares, told) = started(&wal);
    let hear = || told.recv_timeout(DEADLINE).unwrap();
    assert_eq!(hear(), "full");
    fs.set_capacity(None);
    // It may have tried once more before there was room.
    let heard = std::iter::from_fn(|| Some(hear())).find(|heard| heard != "full");
    assert_eq!(heard.unwrap(), "true");
    spares.stop().unwrap();
}

#[test]
fn preparer_thread_reports_the_error_that_ended_it() {
    let fs = SimFs::new(12);
    let mut wal = open(&fs, &small());
    let calls = fs.calls();
    fs.fail_call(calls + 3, EIO);
    let spares = PreparerThread::start(wal.preparer(), |_| {}).unwrap();
    let begin = Instant::now();
    while !matches!(wal.flush_control(), Err(WalError::Poisoned)) {
        assert!(begin.elapsed() < DEADLINE, "the log was not poisoned");
        std::thread::yield_now();
    }
    assert!(matches!(spares.stop(), Err(WalError::Io(_))));
}
