//! What goes wrong.

use super::{Due, World};
use crate::sim::fault::Fault;
use crate::sim::{Place, Us};
use crate::watch::{Seen, Violation};

/// errno of a failed sync: input/output error.
const EIO: i32 = 5;
/// No disk makes so many calls.
const NEVER: u64 = u64::MAX;

impl World {
    pub(super) fn plan_fault(&mut self, number: usize) {
        if let Some((at, _)) = self.scenario.faults.get(number) {
            let at = at * 1_000;
            self.plan(at, Due::Fault { number });
        }
    }

    pub(super) fn begin_fault(&mut self, number: usize) -> Result<(), Violation> {
        let (_, fault) = self.scenario.faults[number];
        self.plan_fault(number + 1);
        if let Fault::Rot { node, .. } = fault
            && self.another_is_damaged(node)
        {
            return Ok(());
        }
        self.timeline.fault(self.now, &fault);
        self.hit(fault)
    }

    /// Does one thing to the world, now.
    ///
    /// # Errors
    /// A promise that is broken at once.
    pub fn hit(&mut self, fault: Fault) -> Result<(), Violation> {
        let until = self.now + fault.ms() * 1_000;
        if fault.nodes().iter().any(|node| *node >= self.nodes.len()) {
            return Ok(()); // A schedule for a larger cluster.
        }
        if fault.process().is_some_and(|node| !self.nodes[node].in_use) {
            return Ok(());
        }
        match fault {
            Fault::PowerCut { node, down_ms } => {
                self.cut_power(node, down_ms * 1_000);
                self.check_links()?;
            }
            Fault::Blackout { down_ms } => self.cut_all_power(down_ms * 1_000)?,
            Fault::PowerCutAtCall { node, calls, .. }
            | Fault::BlackoutAtCall { node, calls, .. } => {
                self.power_cut_at_call(node, calls, fault);
            }
            Fault::Kill { node, down_ms } => self.kill(node, down_ms * 1_000)?,
            Fault::SyncError { node, down_ms } => self.fail_next_sync(node, down_ms * 1_000),
            Fault::Stop { node, down_ms } => self.stop(node, down_ms * 1_000)?,
            Fault::Pause { node, .. } => self.pause(node, until),
            Fault::Cut { from, to, .. } => self.network.cut(from, to, until),
            Fault::Isolate { node, .. } => self.network.isolate(node, until),
            Fault::Split { side, .. } => self.network.split(side, until),
            Fault::Clog { node, .. } => self.network.clog(node, until),
            Fault::SlowLink {
                from, to, delay_ms, ..
            } => self.network.slow(from, to, delay_ms * 1_000, until),
            Fault::Loss { permille, .. } => self.network.lose(permille, until),
            Fault::SlowDisk { node, sync_ms, .. } => {
                self.nodes[node].slow_disk = (until, sync_ms * 1_000);
            }
            Fault::Full { node, .. } => self.fill_disk(node, until),
            Fault::ClockRate { node, percent, .. } => self.nodes[node].clock = (until, percent),
            Fault::ClockJump { node, ms } => self.jump(node, ms)?,
            Fault::Rot {
                node,
                records,
                down_ms,
            } => self.rot(node, records, down_ms * 1_000)?,
            Fault::Transfer { to } => self.transfer(to)?,
            Fault::DiscardLog { node } => self.discard_log(node)?,
            Fault::Add { node } => self.add(node)?,
            Fault::Remove { node } => self.remove(node)?,
            Fault::Replace { old, new } => self.replace(old, new)?,
            Fault::Members { add, remove } => self.change(add, remove)?,
            Fault::LoseAnswers { .. } => self.answers_lost_until = until,
        }
        Ok(())
    }

    fn power_cut_at_call(&mut self, place: Place, calls: u64, fault: Fault) {
        let node = &mut self.nodes[place];
        node.disk.power_cut_at_call(node.disk.calls() + calls);
        node.down_us = fault.ms() * 1_000;
        node.blackout = matches!(fault, Fault::BlackoutAtCall { .. });
    }

    fn cut_all_power(&mut self, down_us: u64) -> Result<(), Violation> {
        for place in 0..self.nodes.len() {
            if self.nodes[place].in_use {
                self.cut_power(place, down_us);
            }
        }
        self.check_links()
    }

    pub(super) fn kill(&mut self, place: Place, down_us: u64) -> Result<(), Violation> {
        if self.nodes[place].is_live() {
            self.timeline.note(self.now, place, "killed");
            self.die(place, down_us);
        }
        self.check_links()
    }

    fn stop(&mut self, place: Place, down_us: Us) -> Result<(), Violation> {
        if !self.nodes[place].is_live() {
            return Ok(());
        }
        self.timeline.note(self.now, place, "told to stop");
        self.nodes[place].stopping = Some(down_us);
        self.handle(place, kvd::driver::Event::Shutdown)
    }

    /// The driver has nothing left to do: as the daemon does then, the log finishes what it was given and is closed.
    pub(super) fn stopped(&mut self, place: Place) -> Result<(), Violation> {
        let Some(down_us) = self.nodes[place].stopping else {
            return Err(Violation {
                rule: "runs until it is told to stop",
                text: crate::sim::node::name(place),
            });
        };
        self.tell_of_turn(place)?;
        let node = &mut self.nodes[place];
        let (id, disk) = (node.id(), node.disk.clone());
        let mut life = node.life.take().expect("it has just spoken");
        self.counts.deaths += 1;
        match life.worker.work() {
            Err(failure) => return self.storage_failed(place, &failure.to_string()),
            Ok(_) if disk.is_stopped() => return self.power_went(place),
            Ok(report) => {
                let persisted = report.persisted.map(Seen::Durable);
                persisted.map_or(Ok(()), |durable| self.watchers.see(id, &durable))?;
            }
        }
        if let Err(failure) = life.worker.close() {
            return self.storage_failed(place, &failure.to_string());
        }
        self.timeline.note(self.now, place, "stops");
        self.counts.stops += 1;
        self.die(place, down_us);
        self.check_links()
    }

    fn fail_next_sync(&mut self, place: Place, down_us: u64) {
        let node = &mut self.nodes[place];
        if node.is_live() {
            node.disk.fail_sync(node.disk.syncs() + 1, EIO);
            node.expects_sync_error = true;
            node.down_us = down_us;
        }
    }

    fn fill_disk(&mut self, place: Place, until: u64) {
        self.nodes[place].disk.set_capacity(Some(0));
        self.nodes[place].full_until = until;
        self.plan(until, Due::Space { place });
    }

    /// The disk has room again, unless it was filled anew.
    pub(super) fn free_disk(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        if node.full_until <= self.now {
            node.disk.set_capacity(None);
        }
    }

    fn jump(&mut self, place: Place, ms: u64) -> Result<(), Violation> {
        for _ in 0..ms / kvd::driver::TICK_MS {
            self.handle(place, kvd::driver::Event::Tick)?;
        }
        Ok(())
    }

    fn cut_power(&mut self, place: Place, down_us: u64) {
        let node = &mut self.nodes[place];
        if node.disk.is_stopped() {
            node.disk.restart();
        } else {
            node.disk.power_cut(&mut self.rng);
        }
        self.timeline.note(self.now, place, "power cut");
        self.counts.power_cuts += 1;
        self.end_life(place, down_us);
    }

    /// The process ends; what it wrote is in the cache.
    pub(super) fn die(&mut self, place: Place, down_us: u64) {
        self.nodes[place].disk.crash_process();
        self.end_life(place, down_us);
    }

    fn end_life(&mut self, place: Place, down_us: u64) {
        let node = &mut self.nodes[place];
        if node.life.take().is_some() {
            self.counts.deaths += 1;
        }
        node.expects_sync_error = false;
        node.stopping = None;
        node.back_at = node.back_at.max(self.now + down_us);
        node.paused_until = 0;
        let back_at = node.back_at;
        self.plan(back_at, Due::Start { place });
        for client in 0..self.clients.len() {
            self.clients[client].lost(self.now, place);
            self.plan_client(client);
        }
    }

    /// A storage call of this node failed because the power is gone, here or everywhere.
    pub(super) fn power_went(&mut self, place: Place) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        let down_us = node.down_us;
        if std::mem::take(&mut node.blackout) {
            return self.cut_all_power(down_us);
        }
        self.cut_power(place, down_us);
        self.check_links()
    }

    /// Opens all ways of the network, in good weather; all else stays as it is.
    pub fn open_ways(&mut self) {
        self.network.heal();
    }

    /// Ends everything that is wrong: all ways are open, all disks sound, all processes run.
    ///
    /// # Errors
    /// A promise that is broken at once.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.timeline.heal(self.now);
        self.scenario.faults.clear();
        self.queue
            .retain(|_, due| !matches!(due, Due::Fault { .. }));
        self.network.heal();
        self.answers_lost_until = 0;
        self.scenario.sync_ms = self.scenario.sync_ms.min(10);
        self.scenario.snapshot_piece_ms = self.scenario.snapshot_piece_ms.min(5);
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            node.disk.set_capacity(None);
            node.slow_disk = (0, 0);
            node.clock = (0, 100);
            let paused_until = std::mem::take(&mut node.paused_until);
            node.back_at = self.now;
            node.stopping = node.stopping.map(|_| 0);
            if !node.in_use {
                continue;
            }
            if node.disk.is_stopped() {
                self.cut_power(place, 0);
            } else if node.expects_sync_error {
                self.die(place, 0);
            } else {
                node.disk.stop_at_call(NEVER);
            }
            self.plan(self.now, Due::Start { place });
            self.move_waiting(place, paused_until, self.now);
        }
        self.check_links()
    }

    /// A process that stands still already goes on when the longer of the two times is over.
    fn pause(&mut self, place: Place, until: Us) {
        let before = self.nodes[place].paused_until;
        if until > before {
            self.nodes[place].paused_until = until;
            self.move_waiting(place, before, until);
        }
    }

    /// What waits for a process that stands still to go on at `before` happens at `after`.
    fn move_waiting(&mut self, place: Place, before: Us, after: Us) {
        let waiting = self
            .queue
            .range((before, 0)..(before + 1, 0))
            .filter(|(_, due)| due.place() == Some(place));
        let keys: Vec<(Us, u64)> = waiting.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(due) = self.queue.remove(&key) {
                self.plan(after, due);
            }
        }
    }

    /// Clients begin nothing new.
    pub fn stop_clients(&mut self) {
        for client in &mut self.clients {
            client.stop();
        }
    }
}
