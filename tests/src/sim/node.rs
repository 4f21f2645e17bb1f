//! One node of the world: its disk, and while it lives its driver, log and snapshots.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use kvd::driver::{
    ClientId, Driver, DriverOptions, Effect, Event, SnapshotOrder, StagedSnapshot, WrittenSnapshot,
};
use kvd::identity::{Identity, InitialMember, NewIdentity};
use kvd::kv::auth::{Principal, Role};
use kvd::kv::limits::CommandLimits;
use kvd::kv::store::Store;
use kvd::log_worker::LogWorker;
use kvd::recover::{RecoverOptions, Recovered, recover};
use kvd::snapshots::{SnapshotDir, SnapshotDirError};
use kvd::wire::client::{MemberAddress, Request, RequestFrame, Response};
use kvd::wire::peer::{self, PeerMessage};
use raft_core::{Config, Configuration, NodeId, SnapshotOutcome};
use raft_log::fs::SimFs;
use raft_log::{Binding, Options, Reader, Wal};
use raft_net::ClusterId;

use super::Place;
use super::links::{Content, Packet};

const CLUSTER: u32 = 0xc0ff_ee42;
const ELECTION_TIMEOUT_TICKS: u32 = 20;
const HEARTBEAT_TICKS: u32 = 4;
const SNAPSHOTS_KEPT: usize = 2;
/// So small that old entries are read from the log, and late.
const CACHE_BYTES: u64 = 8 << 10;
const DATA: &str = "/data";

/// Log of a simulated node: segments so small that rotation and purging happen all the time.
const LOG: Options = Options {
    segment_bytes: 16 << 10,
    max_bytes: 256 << 10,
    reserve_bytes: 0,
    spare_segments: 1,
};

pub(super) fn members(count: usize) -> Vec<MemberAddress> {
    let member = |place| MemberAddress {
        name: name(place),
        id: place as u64 + 1,
        address: String::new(),
    };
    (0..count).map(member).collect()
}

fn name(place: Place) -> String {
    format!("n{}", place + 1)
}

/// What a turn of a node came to.
pub(super) enum Outcome {
    Sent(Vec<Packet>),
    PowerWent,
}

/// A storage call failed. In this world that happens only when the power goes.
struct PowerWent;

/// A node, alive or not.
pub(super) struct SimNode {
    place: Place,
    members: Vec<MemberAddress>,
    pub(super) disk: SimFs,
    life: Option<Life>,
    back_at: u64,
}

/// What a power cut takes away.
struct Life {
    driver: Driver,
    worker: LogWorker<SimFs>,
    reader: Reader<SimFs>,
    snapshots: SnapshotDir<SimFs>,
    boot_counter: u64,
    packets: Vec<Packet>,
    answers: Vec<(ClientId, (u64, Response))>,
    log_is_busy: bool,
    short_of_space: bool,
    staged: Vec<(u64, Place)>,
    tickets: u64,
}

impl SimNode {
    pub(super) fn join(place: Place, members: &[MemberAddress], seed: u64) -> SimNode {
        let disk = SimFs::new(seed);
        let member = &members[place];
        let identity = NewIdentity {
            cluster: ClusterId(CLUSTER),
            cluster_name: "sim".into(),
            node: member.id,
            name: member.name.clone(),
            members: members
                .iter()
                .map(|member| InitialMember {
                    name: member.name.clone(),
                    id: member.id,
                    address: member.address.clone(),
                })
                .collect(),
        };
        let data = Path::new(DATA);
        Wal::create(
            &disk,
            &kvd::identity::log_dir(data),
            binding(member.id),
            &LOG,
        )
        .expect("the disk is sound");
        kvd::identity::create(&disk, data, &identity).expect("the disk is sound");
        SimNode {
            place,
            members: members.to_vec(),
            disk,
            life: None,
            back_at: 0,
        }
    }

    pub(super) fn id(&self) -> NodeId {
        NodeId(self.members[self.place].id)
    }

    pub(super) fn name(&self) -> String {
        name(self.place)
    }

    pub(super) fn is_live(&self) -> bool {
        self.life.is_some()
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        self.life.is_none() && self.back_at <= now
    }

    pub(super) fn boot(&self) -> Option<u64> {
        self.life.as_ref().map(|life| life.boot_counter)
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.life.as_ref().map(|life| life.driver.store())
    }

    /// Applied index and hash of the state.
    pub(super) fn state(&self) -> Option<(u64, u64)> {
        self.store()
            .map(|store| (store.applied_index(), store.hash()))
    }

    /// Leads, has committed an entry of its own term, and has applied its whole log.
    pub(super) fn leads_level(&self) -> bool {
        let status = self.life.as_ref().map(|life| life.driver.node().status());
        status
            .is_some_and(|status| status.own_term_committed && status.applied == status.last.index)
    }

    pub(super) fn picture(&self) -> String {
        match &self.life {
            None => format!("{}: down", self.name()),
            Some(life) => format!(
                "{}: {} | {:?}",
                self.name(),
                life.driver.node().status(),
                self.state()
            ),
        }
    }

    /// Recovers from the disk as the daemon does; an error means that the power went again meanwhile.
    ///
    /// # Panics
    /// If the disk, after nothing worse than a power cut, is not accepted.
    pub(super) fn start(&mut self, seed: u64, snapshot_every_bytes: u64) -> Result<(), ()> {
        let data = PathBuf::from(DATA);
        let started = self.recover(&data, seed, snapshot_every_bytes);
        match started {
            Ok(life) => {
                self.life = Some(life);
                Ok(())
            }
            Err(_) if self.disk.is_stopped() => Err(()),
            Err(why) => panic!("{} does not start after a power cut: {why}", self.name()),
        }
    }

    fn recover(&self, data: &Path, seed: u64, snapshot_every_bytes: u64) -> Result<Life, String> {
        let id = self.id();
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (mut identity, _) = Identity::open(&self.disk, data, ClusterId(CLUSTER), id.0)
            .map_err(|error| text(&error))?;
        let options = RecoverOptions {
            binding: binding(id.0),
            wal: LOG,
            snapshots_kept: SNAPSHOTS_KEPT,
            founding: Configuration::new(self.members.iter().map(|member| NodeId(member.id))),
            members: self.members.clone(),
            cache_bytes: CACHE_BYTES,
        };
        let recovered = recover(&self.disk, data, &options).map_err(|error| text(&error))?;
        let (boot_counter, _) = identity
            .begin_incarnation(&self.disk)
            .map_err(|error| text(&error))?;
        let Recovered {
            wal,
            cache,
            store,
            snapshots,
            ..
        } = recovered;
        let reader = wal.reader();
        let mut worker = LogWorker::new(wal);
        let space = worker.work().map_err(|error| text(&error))?;
        let mut config = Config::new(id, seed);
        config.election_timeout_ticks = ELECTION_TIMEOUT_TICKS;
        config.heartbeat_ticks = HEARTBEAT_TICKS;
        let core = raft_core::Node::new(config, cache).map_err(|error| text(&error))?;
        let driver = Driver::new(
            self.driver_options(boot_counter, snapshot_every_bytes),
            core,
            store,
            &space,
        );
        Ok(Life {
            driver,
            worker,
            reader,
            snapshots,
            boot_counter,
            packets: Vec::new(),
            answers: Vec::new(),
            log_is_busy: false,
            short_of_space: true,
            staged: Vec::new(),
            tickets: 0,
        })
    }

    fn driver_options(&self, boot_counter: u64, snapshot_every_bytes: u64) -> DriverOptions {
        DriverOptions {
            boot_counter,
            cluster: CLUSTER,
            cluster_name: "sim".into(),
            name: self.name(),
            members: self.members.clone(),
            election_timeout_ticks: u64::from(ELECTION_TIMEOUT_TICKS),
            waiting_bytes: 1 << 20,
            waiting_count: 1024,
            limits: CommandLimits::default(),
            snapshot_every_bytes,
        }
    }

    /// The process is gone, and of what it had not synced some is kept, some lost and some garbled.
    pub(super) fn lose_power(&mut self, rng: &mut StdRng, back_at: u64) {
        self.life = None;
        match self.disk.is_stopped() {
            true => self.disk.restart(),
            false => self.disk.power_cut(rng),
        }
        self.back_at = back_at;
    }

    pub(super) fn tick(&mut self) {
        self.handle(Event::Tick);
    }

    pub(super) fn peer_up(&mut self, peer: NodeId, boot_counter: u64) {
        self.handle(Event::PeerUp { peer, boot_counter });
    }

    pub(super) fn peer_down(&mut self, peer: NodeId) {
        self.handle(Event::PeerDown { peer });
    }

    pub(super) fn ask(&mut self, client: ClientId, (id, body): (u64, Request)) {
        let principal = Principal::new(Role::Client, "sim");
        self.handle(Event::Request {
            client,
            principal,
            frame: RequestFrame { id, body },
        });
    }

    fn handle(&mut self, event: Event) {
        if let Some(life) = &mut self.life {
            life.driver.handle(event);
        }
    }

    pub(super) fn receive(&mut self, packet: Packet) {
        let Some(life) = &mut self.life else { return };
        let from = NodeId(self.members[packet.from].id);
        match packet.content {
            Content::Message(bytes) => {
                let message =
                    peer::decode(CLUSTER, bytes).expect("this network does not alter bytes");
                life.driver.handle(Event::Peer { from, message });
            }
            Content::Snapshot(header, chunks) => {
                let taken = life.stage(packet.from, header, &chunks);
                // A failed storage call shows at the next turn, when everything fails.
                if !taken {
                    life.packets.push(reply(self.place, packet.from, false));
                }
            }
            Content::SnapshotTaken(taken) => {
                let outcome = if taken {
                    SnapshotOutcome::Delivered
                } else {
                    SnapshotOutcome::Failed
                };
                life.driver
                    .handle(Event::SnapshotSent { to: from, outcome });
            }
        }
    }

    /// One turn of the driver, and of the disk when it is its time.
    pub(super) fn turn(&mut self, rng: &mut StdRng) -> Outcome {
        let Some(life) = &mut self.life else {
            return Outcome::Sent(Vec::new());
        };
        let effects = life.driver.turn();
        let carried = effects
            .into_iter()
            .try_for_each(|effect| life.carry_out(self.place, effect, &self.members));
        let synced = carried
            .and_then(|()| life.work_on_log(rng))
            .and_then(|()| life.prepare(rng));
        match synced {
            Ok(()) if !self.disk.is_stopped() => Outcome::Sent(std::mem::take(&mut life.packets)),
            Ok(()) | Err(PowerWent) => {
                assert!(
                    self.disk.is_stopped(),
                    "a storage call failed although the power is on"
                );
                Outcome::PowerWent
            }
        }
    }

    pub(super) fn take_answers(&mut self) -> Vec<(ClientId, (u64, Response))> {
        self.life
            .as_mut()
            .map(|life| std::mem::take(&mut life.answers))
            .unwrap_or_default()
    }
}

impl Life {
    fn carry_out(
        &mut self,
        own: Place,
        effect: Effect,
        members: &[MemberAddress],
    ) -> Result<(), PowerWent> {
        let place_of = |id: NodeId| {
            members
                .iter()
                .position(|member| member.id == id.0)
                .expect("a member")
        };
        match effect {
            Effect::Send { to, message } => {
                let bytes = Bytes::from(peer::encode(CLUSTER, &message).concat());
                self.packets.push(Packet {
                    from: own,
                    to: place_of(to),
                    content: Content::Message(bytes),
                });
            }
            Effect::Log(job) => {
                self.worker.push(job);
                self.log_is_busy = true;
            }
            Effect::Fetch(fetch) => {
                let range = fetch.range.start.0..fetch.range.end.0;
                let read = self.reader.entries(range, fetch.max_bytes);
                let entries = read
                    .ok()
                    .and_then(|stored| kvd::recover::core_entries(stored).ok());
                self.driver.handle(Event::Fetched { fetch, entries });
            }
            Effect::Answer { client, frame } => self.answers.push((client, (frame.id, frame.body))),
            Effect::WriteSnapshot(order) => {
                let written = self.write_snapshot(&order).map_err(|_| PowerWent)?;
                self.driver.handle(Event::SnapshotWritten(Some(written)));
            }
            Effect::SendSnapshot { to, envelope } => {
                let meta = envelope.message.snapshot().expect("a snapshot message");
                let index = meta.id.index.0;
                let chunks = self
                    .snapshots
                    .open_send(index)
                    .and_then(|chunks| chunks.collect::<Result<Vec<_>, _>>());
                let content = match chunks {
                    Ok(chunks) => {
                        let header = peer::encode(CLUSTER, &PeerMessage::Raft(envelope)).concat();
                        Content::Snapshot(header.into(), chunks)
                    }
                    Err(_) => {
                        self.driver.handle(Event::SnapshotSent {
                            to,
                            outcome: SnapshotOutcome::Failed,
                        });
                        return Ok(());
                    }
                };
                self.packets.push(Packet {
                    from: own,
                    to: place_of(to),
                    content,
                });
            }
            Effect::SnapshotTaken { ticket } => {
                self.staged.retain(|(staged, sender)| {
                    if *staged == ticket {
                        self.packets.push(reply(own, *sender, true));
                    }
                    *staged != ticket
                });
            }
            Effect::Observe(_) => {}
            Effect::Halt { index, why } => panic!("halted at {index}: {why}"),
            Effect::Stopped => panic!("nobody asked the node to stop"),
        }
        Ok(())
    }

    fn write_snapshot(
        &mut self,
        order: &SnapshotOrder,
    ) -> Result<WrittenSnapshot, SnapshotDirError> {
        if !self
            .snapshots
            .list()?
            .iter()
            .any(|info| info.id == order.meta.id)
        {
            self.snapshots.write(&order.view, &order.meta)?;
        }
        let oldest_kept = if order.only_one {
            self.snapshots.prune_to(1)?
        } else {
            self.snapshots.prune()?
        };
        Ok(WrittenSnapshot {
            meta: order.meta.clone(),
            oldest_kept,
        })
    }

    /// Receives a whole snapshot and offers it to the driver; false if it is not usable.
    fn stage(&mut self, sender: Place, header: Bytes, chunks: &[Bytes]) -> bool {
        let Ok(PeerMessage::Raft(envelope)) = peer::decode(CLUSTER, header) else {
            return false;
        };
        let Some(meta) = envelope.message.snapshot() else {
            return false;
        };
        let received = self.snapshots.begin_receive(meta).and_then(|mut file| {
            chunks.iter().try_for_each(|chunk| file.write(chunk))?;
            file.finish()
        });
        let Ok((header, store)) = received else {
            return false;
        };
        self.tickets += 1;
        self.staged.push((self.tickets, sender));
        let staged = StagedSnapshot {
            ticket: self.tickets,
            envelope,
            header,
            store,
        };
        self.driver.handle(Event::SnapshotStaged(Box::new(staged)));
        true
    }

    /// The log thread: a sync takes some ticks, and takes in everything that has come meanwhile.
    fn work_on_log(&mut self, rng: &mut StdRng) -> Result<(), PowerWent> {
        if !self.log_is_busy || rng.random_ratio(2, 3) {
            return Ok(());
        }
        self.log_is_busy = false;
        let report = self.worker.work().map_err(|_| PowerWent)?;
        self.short_of_space = report.prepared_bytes < LOG.segment_bytes;
        self.driver.handle(Event::Log(report));
        if rng.random_ratio(1, 8) {
            self.worker.idle().map_err(|_| PowerWent)?;
        }
        Ok(())
    }

    /// The thread that prepares the next segment; it is done some ticks after it was needed.
    fn prepare(&mut self, rng: &mut StdRng) -> Result<(), PowerWent> {
        if !self.short_of_space || rng.random_ratio(4, 5) {
            return Ok(());
        }
        self.worker
            .preparer()
            .prepare_spare()
            .map_err(|_| PowerWent)?;
        // Report how much space there is now.
        self.log_is_busy = true;
        Ok(())
    }
}

fn reply(from: Place, to: Place, taken: bool) -> Packet {
    Packet {
        from,
        to,
        content: Content::SnapshotTaken(taken),
    }
}

fn binding(node: u64) -> Binding {
    Binding {
        cluster: CLUSTER,
        node,
    }
}
