//! What a node wants done, and the threads that do it.

use bytes::Bytes;

use kvd::driver::{Effect, Event, SnapshotOrder};
use kvd::log_worker::LogJob;
use kvd::wire::client::ResponseFrame;
use kvd::wire::peer::{self, PeerMessage};
use raft_core::NodeId;
use rand::RngExt;

use super::probe::PROBE;
use super::{ANSWER_US, Due, FETCH_US, FULL_DISK_US, IDLE_US, PREPARE_US, World};
use crate::sim::node::{self, CLUSTER, LOG};
use crate::sim::{Place, Us};
use crate::watch::{Seen, Violation};

impl World {
    /// One turn of a node.
    pub(super) fn turn(&mut self, place: Place) -> Result<(), Violation> {
        let Some(life) = &mut self.nodes[place].life else {
            return Ok(());
        };
        let effects = life.driver.turn();
        let lives = self.nodes[place].lives;
        for effect in effects {
            if !self.nodes[place].is_live() || self.nodes[place].lives != lives {
                return Ok(()); // It ended over the one before.
            }
            self.carry_out(place, effect)?;
        }
        if self.nodes[place].disk.is_stopped() {
            return self.power_went(place);
        }
        self.tell_of_turn(place)
    }

    fn carry_out(&mut self, place: Place, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Send { to, message } => self.send(place, to, &message),
            Effect::Log(job) => self.give_to_log(place, job),
            Effect::Fetch(fetch) => {
                let Some(life) = &mut self.nodes[place].life else {
                    return Ok(());
                };
                let range = fetch.range.start.0..fetch.range.end.0;
                let read = life.reader.entries(range, fetch.max_bytes);
                if let Err(raft_log::ReadError::Corrupt(_)) = &read {
                    let faulty = Event::Faulty(vec![fetch.range.start]);
                    self.tell_at(self.now, place, faulty);
                }
                let entries = read
                    .ok()
                    .and_then(|stored| kvd::recover::core_entries(stored).ok());
                let at = self.now + FETCH_US;
                self.tell_at(at, place, Event::Fetched { fetch, entries });
                Ok(())
            }
            Effect::Answer { client, frame } => {
                self.answer(client.0 as usize, frame);
                Ok(())
            }
            Effect::WriteSnapshot(order) => {
                let life = self.nodes[place].lives;
                let us = self.rng.random_range(1_000..50_000);
                self.plan_in(us, Due::Snapshot { place, life, order });
                Ok(())
            }
            Effect::SendSnapshot { to, envelope } => {
                self.watchers
                    .see(node::id(place), &Seen::Sends(&envelope))?;
                self.begin_transfer(place, node::place(to), envelope)
            }
            Effect::SnapshotTaken { ticket } => {
                self.transfer_taken(place, ticket);
                Ok(())
            }
            Effect::Distrust(suspect) => self.distrust(place, &suspect),
            Effect::Trust(id) => self.trust(place, id),
            // No operator of these worlds asks for it: what rots is found by reading, and at the next start.
            Effect::Scrub { .. } => Ok(()),
            // Links are the world's own, whoever the members are.
            Effect::Members { .. } => Ok(()),
            Effect::Observe(event) => {
                self.count(&event);
                self.timeline.event(self.now, place, &event);
                self.watchers.see(node::id(place), &Seen::Told(&event))
            }
            Effect::Halt { index, refusal } => Err(Violation {
                rule: "understands its log",
                text: format!("{} halts at {index}: {refusal}", node::id(place)),
            }),
            Effect::Stopped => self.stopped(place),
        }
    }

    fn count(&mut self, event: &raft_core::Event) {
        if let raft_core::Event::Repaired { count, .. } = event {
            self.counts.repaired += count;
        }
        if let raft_core::Event::ConfigurationCommitted { .. } = event {
            self.counts.configurations += 1;
        }
    }

    fn send(&mut self, from: Place, to: NodeId, message: &PeerMessage) -> Result<(), Violation> {
        if let PeerMessage::Raft(envelope) = message {
            self.watchers.see(node::id(from), &Seen::Sends(envelope))?;
        }
        let to = node::place(to);
        let Some(connection) = self.links.connection(from, to) else {
            return Ok(());
        };
        let mut arrivals = self.network.arrivals(self.now, from, to);
        self.timeline
            .message(self.now, from, to, arrivals.first().copied(), message);
        if !matches!(message, PeerMessage::Raft(_)) {
            // The transport repeats nothing. The core does not mind, but a forwarded write is no question to ask twice.
            arrivals.truncate(1);
        }
        if arrivals.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(peer::encode(CLUSTER, message).concat());
        for at in arrivals {
            let bytes = bytes.clone();
            self.plan(
                at,
                Due::Packet {
                    from,
                    to,
                    connection,
                    bytes,
                },
            );
        }
        Ok(())
    }

    fn answer(&mut self, client: usize, frame: ResponseFrame) {
        if client == PROBE && self.now >= self.answers_lost_until {
            return self.probes.answered(self.now, frame.id, frame.body);
        }
        // Answers to what the world itself asked are for nobody.
        if client < self.clients.len() && self.now >= self.answers_lost_until {
            let ResponseFrame { id, body } = frame;
            let response = Box::new(body);
            self.plan_in(
                ANSWER_US,
                Due::Answer {
                    client,
                    id,
                    response,
                },
            );
        }
    }

    fn give_to_log(&mut self, place: Place, job: LogJob) -> Result<(), Violation> {
        if let LogJob::Persist(persist) = &job {
            self.watchers.see(node::id(place), &Seen::Given(persist))?;
        }
        if let Some(life) = &mut self.nodes[place].life {
            life.worker.push(job);
            self.wake_log(place);
        }
        Ok(())
    }

    /// The log thread begins, unless it works already: then it takes in what has come meanwhile.
    fn wake_log(&mut self, place: Place) {
        let longest = self.scenario.sync_ms.max(1) * 1_000;
        let us = self.rng.random_range(longest / 10..=longest);
        let us = us + self.nodes[place].extra_sync_us(self.now);
        let lives = self.nodes[place].lives;
        if let Some(life) = &mut self.nodes[place].life
            && !std::mem::replace(&mut life.log_is_busy, true)
        {
            self.plan_in(us, Due::Log { place, life: lives });
        }
    }

    pub(super) fn work_on_log(&mut self, place: Place) -> Result<(), Violation> {
        let Some(life) = &mut self.nodes[place].life else {
            return Ok(());
        };
        life.log_is_busy = false;
        life.log_works += 1;
        let works = life.log_works;
        match life.worker.work() {
            Err(failure) => self.storage_failed(place, &failure.to_string()),
            Ok(_) if self.nodes[place].disk.is_stopped() => self.power_went(place),
            Ok(report) => {
                if let Some(through) = report.persisted {
                    self.watchers
                        .see(node::id(place), &Seen::Durable(through))?;
                }
                let life = self.nodes[place].lives;
                self.plan_in(IDLE_US, Due::LogIdle { place, life, works });
                let bytes = Seen::LogBytes(report.size_bytes, LOG.max_bytes + LOG.segment_bytes);
                self.watchers.see(node::id(place), &bytes)?;
                if report.full || report.prepared_bytes < LOG.segment_bytes {
                    self.plan_preparing(place);
                }
                self.handle(place, Event::Log(report))
            }
        }
    }

    /// The log thread has been idle for a while, unless it has worked since.
    pub(super) fn idle_log(&mut self, place: Place, works: u64) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        let Some(life) = node.life.as_mut().filter(|life| life.log_works == works) else {
            return Ok(());
        };
        match life.worker.idle() {
            Err(failure) => self.storage_failed(place, &failure.to_string()),
            Ok(()) if node.disk.is_stopped() => self.power_went(place),
            Ok(()) => {
                node.settled_index = life.reader.last_index();
                Ok(())
            }
        }
    }

    /// The preparing thread begins, unless it works already.
    pub(super) fn plan_preparing(&mut self, place: Place) {
        let us = self.rng.random_range(1_000..PREPARE_US);
        self.plan_preparing_in(place, us);
    }

    fn plan_preparing_in(&mut self, place: Place, us: Us) {
        let lives = self.nodes[place].lives;
        if let Some(life) = &mut self.nodes[place].life
            && !std::mem::replace(&mut life.is_preparing, true)
        {
            self.plan_in(us, Due::Prepared { place, life: lives });
        }
    }

    pub(super) fn prepare(&mut self, place: Place) -> Result<(), Violation> {
        let Some(life) = &mut self.nodes[place].life else {
            return Ok(());
        };
        life.is_preparing = false;
        let preparer = life.worker.preparer();
        let prepared = preparer.seal().and_then(|_| preparer.prepare_spare());
        match prepared {
            Ok(true) => {
                // The log must look at what it can use now.
                self.wake_log(place);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(raft_log::WalError::NoSpace { .. }) => {
                self.plan_preparing_in(place, FULL_DISK_US);
                Ok(())
            }
            Err(error) => self.storage_failed(place, &error.to_string()),
        }
    }

    pub(super) fn write_snapshot(
        &mut self,
        place: Place,
        order: &SnapshotOrder,
    ) -> Result<(), Violation> {
        let Some(life) = &mut self.nodes[place].life else {
            return Ok(());
        };
        let written = life.snapshots.carry_out(order);
        if self.nodes[place].disk.is_stopped() {
            return self.power_went(place);
        }
        match written {
            Ok(written) => self.handle(place, Event::SnapshotWritten(Some(written))),
            Err(error) if error.is_fatal() => self.storage_failed(place, &error.to_string()),
            Err(_) => self.handle(place, Event::SnapshotWritten(None)),
        }
    }

    /// A storage call failed for good: the power is gone, or the process must end because a sync failed as planned.
    pub(super) fn storage_failed(&mut self, place: Place, why: &str) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        if node.disk.is_stopped() {
            return self.power_went(place);
        }
        if std::mem::take(&mut node.expects_sync_error) {
            let down_us = node.down_us;
            self.timeline.note(self.now, place, "exits: a sync failed");
            self.die(place, down_us);
            return Ok(());
        }
        Err(Violation {
            rule: "storage works",
            text: format!("{}: {why}", node::name(place)),
        })
    }
}
