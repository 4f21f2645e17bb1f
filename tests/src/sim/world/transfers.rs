//! Snapshots on their way: piece by piece, on a connection that may end after any of them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kvd::driver::{Event, StagedSnapshot};
use kvd::snapshots::{Incoming, SnapshotDirError};
use raft_core::{Envelope, SnapshotOutcome};
use raft_log::fs::SimFs;

use super::{Due, World};
use crate::sim::{Place, Us, node};
use crate::watch::Violation;

/// So small that a transfer takes many steps.
const PIECE_BYTES: usize = 2 << 10;
/// How long a piece waits before it tries a blocked way again.
const BLOCKED_US: Us = 50_000;

/// One snapshot on its way.
struct Transfer {
    from: Place,
    to: Place,
    connection: u64,
    envelope: Envelope,
    pieces: VecDeque<Bytes>,
    incoming: Option<Incoming<SimFs>>,
    /// What the sender is to be told; then this is the last step.
    verdict: Option<SnapshotOutcome>,
}

/// All snapshots on their way.
#[derive(Default)]
pub(super) struct Transfers {
    running: BTreeMap<u64, Transfer>,
    begun: u64,
}

impl World {
    pub(super) fn begin_transfer(
        &mut self,
        from: Place,
        to: Place,
        envelope: Envelope,
    ) -> Result<(), Violation> {
        let Some(life) = &self.nodes[from].life else {
            return Ok(());
        };
        let index = envelope
            .message
            .snapshot()
            .map(|meta| meta.id.index.0)
            .expect("a snapshot message");
        let read = life
            .snapshots
            .open_send(index)
            .and_then(|chunks| chunks.collect::<Result<Vec<_>, _>>());
        if self.nodes[from].disk.is_stopped() {
            return self.power_went(from);
        }
        let connection = self.links.connection(from, to);
        let (Ok(chunks), Some(connection)) = (read, connection) else {
            return self.tell_sender(from, to, SnapshotOutcome::Failed);
        };
        let whole: Vec<u8> = chunks.concat();
        let pieces = whole.chunks(PIECE_BYTES).map(Bytes::copy_from_slice);
        self.transfers.begun += 1;
        let number = self.transfers.begun;
        self.timeline.note(
            self.now,
            from,
            &format!("sends snapshot {index} to {}", node::name(to)),
        );
        self.transfers.running.insert(
            number,
            Transfer {
                from,
                to,
                connection,
                envelope,
                pieces: pieces.collect(),
                incoming: None,
                verdict: None,
            },
        );
        self.plan_step(number);
        Ok(())
    }

    /// Plans the next step of a transfer: the way from the sender to the receiver, or back with the verdict.
    fn plan_step(&mut self, number: u64) {
        let Some(transfer) = self.transfers.running.get(&number) else {
            return;
        };
        let (from, to) = match transfer.verdict {
            None => (transfer.from, transfer.to),
            Some(_) => (transfer.to, transfer.from),
        };
        let piece_us = self.scenario.snapshot_piece_ms * 1_000;
        let arrival = self.network.reliable_arrival(self.now, from, to);
        let at = arrival.map_or(self.now + BLOCKED_US, |at| at + piece_us);
        self.plan(at, Due::Transfer { number });
    }

    pub(super) fn step_transfer(&mut self, number: u64) -> Result<(), Violation> {
        let Some(transfer) = self.transfers.running.get(&number) else {
            return Ok(());
        };
        let (from, to) = (transfer.from, transfer.to);
        if !self.links.stands(from, to, transfer.connection) {
            return self.fail_transfer(number);
        }
        if let Some(verdict) = transfer.verdict {
            if self.network.reliable_arrival(self.now, to, from).is_none() {
                self.plan_step(number);
                return Ok(());
            }
            self.transfers.running.remove(&number);
            self.counts.transfers += 1;
            return self.tell_sender(from, to, verdict);
        }
        let is_open = self.network.reliable_arrival(self.now, from, to).is_some();
        if is_open && self.now >= self.nodes[to].paused_until {
            self.take_piece(number)
        } else {
            self.plan_step(number);
            Ok(())
        }
    }

    /// The receiver takes the next piece; after the last one it stages the snapshot.
    fn take_piece(&mut self, number: u64) -> Result<(), Violation> {
        let transfer = self
            .transfers
            .running
            .get_mut(&number)
            .expect("it is running");
        let to = transfer.to;
        let disk = self.nodes[to].disk.clone();
        let Some(life) = &mut self.nodes[to].life else {
            return self.fail_transfer(number);
        };
        match receive(transfer, &life.snapshots) {
            _ if disk.is_stopped() => {
                self.power_went(to)?;
                self.fail_transfer(number)
            }
            Ok(None) => {
                self.plan_step(number);
                Ok(())
            }
            Ok(Some((header, store))) => {
                let envelope = transfer.envelope.clone();
                life.tickets += 1;
                let ticket = life.tickets;
                life.staged.insert(ticket, number);
                let staged = StagedSnapshot {
                    ticket,
                    envelope,
                    header,
                    store,
                };
                self.handle(to, Event::SnapshotStaged(Box::new(staged)))
            }
            Err(error) if error.is_fatal() => {
                self.storage_failed(to, &error.to_string())?;
                self.fail_transfer(number)
            }
            Err(_) => {
                transfer.incoming = None;
                transfer.verdict = Some(SnapshotOutcome::Failed);
                self.plan_step(number);
                Ok(())
            }
        }
    }

    /// The driver has taken a staged snapshot: its sender is told.
    pub(super) fn transfer_taken(&mut self, place: Place, ticket: u64) {
        let life = self.nodes[place].life.as_mut();
        let Some(number) = life.and_then(|life| life.staged.remove(&ticket)) else {
            return;
        };
        if let Some(transfer) = self.transfers.running.get_mut(&number) {
            transfer.verdict = Some(SnapshotOutcome::Delivered);
            self.plan_step(number);
        }
    }

    /// The connection between two nodes is gone, and with it what was on its way.
    pub(super) fn fail_transfers(&mut self, one: Place, other: Place) -> Result<(), Violation> {
        let ends = [(one, other), (other, one)];
        let running = self.transfers.running.iter();
        let lost: Vec<u64> = running
            .filter(|(_, transfer)| ends.contains(&(transfer.from, transfer.to)))
            .map(|(number, _)| *number)
            .collect();
        lost.into_iter()
            .try_for_each(|number| self.fail_transfer(number))
    }

    fn fail_transfer(&mut self, number: u64) -> Result<(), Violation> {
        match self.transfers.running.remove(&number) {
            None => Ok(()),
            Some(transfer) => self.tell_sender(transfer.from, transfer.to, SnapshotOutcome::Failed),
        }
    }

    /// A sender that has started anew meanwhile knows of no transfer, and does not mind.
    fn tell_sender(
        &mut self,
        from: Place,
        to: Place,
        outcome: SnapshotOutcome,
    ) -> Result<(), Violation> {
        let to = node::id(to);
        if let Some(life) = &mut self.nodes[from].life {
            life.driver.handle(Event::SnapshotSent { to, outcome });
        }
        Ok(())
    }
}

/// A snapshot on its way, as it is seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnItsWay {
    /// Counts transfers from 1 on, in the order in which they began.
    pub number: u64,
    /// The sender.
    pub from: Place,
    /// The receiver.
    pub to: Place,
    /// The last entry that it covers.
    pub index: u64,
    /// Pieces that the receiver does not have yet.
    pub pieces_left: usize,
}

impl World {
    /// All snapshots on their way; one whose last piece has arrived is among them until its sender knows.
    pub fn on_their_way(&self) -> Vec<OnItsWay> {
        let running = self.transfers.running.iter();
        let seen = running.map(|(number, transfer)| OnItsWay {
            number: *number,
            from: transfer.from,
            to: transfer.to,
            index: transfer
                .envelope
                .message
                .snapshot()
                .map_or(0, |meta| meta.id.index.0),
            pieces_left: transfer.pieces.len(),
        });
        seen.collect()
    }
}

type Received = (kvd::kv::snapshot::SnapshotHeader, kvd::kv::store::Store);

/// Hands the next piece to the file; after the last one the whole snapshot comes back.
fn receive(
    transfer: &mut Transfer,
    snapshots: &kvd::snapshots::SnapshotDir<SimFs>,
) -> Result<Option<Received>, SnapshotDirError> {
    let mut incoming = match transfer.incoming.take() {
        Some(incoming) => incoming,
        None => {
            let meta = transfer.envelope.message.snapshot();
            snapshots.begin_receive(meta.expect("a snapshot message"))?
        }
    };
    if let Some(piece) = transfer.pieces.pop_front() {
        incoming.write(&piece)?;
    }
    if transfer.pieces.is_empty() {
        return incoming.finish().map(Some);
    }
    transfer.incoming = Some(incoming);
    Ok(None)
}
