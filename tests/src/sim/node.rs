//! One machine of the world: its disk, its clock, and while its process lives the driver, the log and the snapshots.

use std::collections::BTreeMap;
use std::path::Path;

use kvd::driver::{Driver, DriverOptions};
use kvd::identity::{Identity, InitialMember, NewIdentity};
use kvd::kv::limits::CommandLimits;
use kvd::log_worker::LogWorker;
use kvd::recover::{RecoverOptions, Recovered, recover};
use kvd::snapshots::SnapshotDir;
use kvd::wire::client::MemberAddress;
use raft_core::{Config, Configuration, NodeId};
use raft_log::fs::SimFs;
use raft_log::{Binding, Options, Reader, Wal};
use raft_net::ClusterId;

use super::{Place, Us};

pub(super) const CLUSTER: u32 = 0xc0ff_ee42;
/// Election timeout and heartbeat of every node, in ticks.
pub(super) const ELECTION_TIMEOUT_TICKS: u32 = 20;
const HEARTBEAT_TICKS: u32 = 4;
const SNAPSHOTS_KEPT: usize = 2;
/// So small that old entries are read from the log, and late.
const CACHE_BYTES: u64 = 8 << 10;
/// Replicas compare their state so often that most runs have many positions.
const HASH_EVERY: u64 = 32;
pub(super) const DATA: &str = "/data";

/// Log of a simulated node: segments so small that rotation and purging happen all the time.
pub(super) const LOG: Options = Options {
    segment_bytes: 16 << 10,
    max_bytes: 256 << 10,
    reserve_bytes: 0,
    spare_segments: 1,
};

/// The process of a machine.
pub(super) struct Life {
    pub(super) driver: Driver,
    pub(super) worker: LogWorker<SimFs>,
    pub(super) reader: Reader<SimFs>,
    pub(super) snapshots: SnapshotDir<SimFs>,
    pub(super) boot_counter: u64,
    /// What was found on the disk.
    pub(super) found: String,
    /// The log has been given work, and it will be told when it is done.
    pub(super) log_is_busy: bool,
    /// How often the log thread has worked.
    pub(super) log_works: u64,
    /// The next segment is being prepared.
    pub(super) is_preparing: bool,
    /// Staged snapshots that the driver has not taken yet, with the transfer that brought them.
    pub(super) staged: BTreeMap<u64, u64>,
    pub(super) tickets: u64,
}

/// A machine, running or not.
pub(super) struct SimNode {
    place: Place,
    members: Vec<MemberAddress>,
    pub(super) disk: SimFs,
    pub(super) life: Option<Life>,
    /// It is or was a member, or is about to be one; nothing happens to the other machines.
    pub(super) in_use: bool,
    /// Counts processes, so that what was planned for one does not happen to the next.
    pub(super) lives: u64,
    /// The last entry of its log when the log thread was idle for the last time.
    pub(super) settled_index: u64,
    /// When its process starts again, if it is down.
    pub(super) back_at: Us,
    /// Until when its process stands still.
    pub(super) paused_until: Us,
    /// Until when each sync takes longer, and how much.
    pub(super) slow_disk: (Us, Us),
    /// Until when its clock runs at another speed, and at how many percent.
    pub(super) clock: (Us, u64),
    /// Until when its disk takes nothing more.
    pub(super) full_until: Us,
    /// How long it stays down after what its disk is about to do.
    pub(super) down_us: Us,
    /// Its disk is about to fail a sync, which ends its process.
    pub(super) expects_sync_error: bool,
    /// It was told to stop, and stays down for so long once it has.
    pub(super) stopping: Option<Us>,
    /// Whether the planned power cut takes all other machines along.
    pub(super) blackout: bool,
}

/// The founding members of a world.
pub(super) fn members(count: usize) -> Vec<MemberAddress> {
    let member = |place| MemberAddress {
        name: name(place),
        id: id(place).0,
        address: String::new(),
    };
    (0..count).map(member).collect()
}

pub(super) fn name(place: Place) -> String {
    format!("n{}", place + 1)
}

pub(super) fn id(place: Place) -> NodeId {
    NodeId(place as u64 + 1)
}

pub(super) fn place(id: NodeId) -> Place {
    usize::try_from(id.0).expect("ids of this world are small") - 1
}

fn binding(node: NodeId) -> Binding {
    Binding {
        cluster: CLUSTER,
        node: node.0,
    }
}

impl SimNode {
    /// A machine whose data directory was made by `join`, and whose process does not run yet.
    pub(super) fn join(place: Place, members: &[MemberAddress], seed: u64) -> SimNode {
        let disk = SimFs::new(seed);
        let data = Path::new(DATA);
        let log = kvd::identity::log_dir(data);
        Wal::create(&disk, &log, binding(id(place)), &LOG).expect("the disk is sound");
        kvd::identity::create(&disk, data, &new_identity(place, members))
            .expect("the disk is sound");
        SimNode {
            place,
            members: members.to_vec(),
            disk,
            life: None,
            in_use: place < members.len(),
            lives: 0,
            settled_index: 0,
            back_at: 0,
            paused_until: 0,
            slow_disk: (0, 0),
            clock: (0, 100),
            full_until: 0,
            down_us: 0,
            expects_sync_error: false,
            stopping: None,
            blackout: false,
        }
    }

    pub(super) fn id(&self) -> NodeId {
        id(self.place)
    }

    pub(super) fn is_live(&self) -> bool {
        self.life.is_some()
    }

    /// Recovers from the disk as the daemon does.
    pub(super) fn start(&mut self, seed: u64, scenario: &Starting) -> Result<(), String> {
        let life = self.recover(Path::new(DATA), seed, scenario)?;
        self.lives += 1;
        self.life = Some(life);
        Ok(())
    }

    fn recover(&self, data: &Path, seed: u64, scenario: &Starting) -> Result<Life, String> {
        let (mut identity, _) =
            Identity::open(&self.disk, data, ClusterId(CLUSTER), self.id().0).map_err(text)?;
        let recovered = recover(&self.disk, data, &self.recover_options()).map_err(text)?;
        let (boot_counter, _) = identity.begin_incarnation(&self.disk).map_err(text)?;
        let Recovered {
            wal,
            cache,
            store,
            snapshots,
            suspect,
            opened,
        } = recovered;
        let reader = wal.reader();
        let mut worker = LogWorker::new(wal);
        let space = worker.work().map_err(text)?;
        let mut config = Config::new(self.id(), seed);
        config.election_timeout_ticks = ELECTION_TIMEOUT_TICKS;
        config.heartbeat_ticks = HEARTBEAT_TICKS;
        let core = raft_core::Node::new(config, cache).map_err(text)?;
        let options = self.driver_options(boot_counter, scenario);
        let mut driver = Driver::new(options, core, store, &space);
        if let Some(suspect) = suspect {
            driver.start_suspect(suspect);
        }
        Ok(Life {
            driver,
            worker,
            reader,
            snapshots,
            boot_counter,
            found: opened.to_string(),
            log_is_busy: false,
            log_works: 0,
            is_preparing: false,
            staged: BTreeMap::new(),
            tickets: 0,
        })
    }

    fn recover_options(&self) -> RecoverOptions {
        RecoverOptions {
            binding: binding(self.id()),
            wal: LOG,
            snapshots_kept: SNAPSHOTS_KEPT,
            founding: Configuration::new(self.members.iter().map(|member| NodeId(member.id))),
            members: self.members.clone(),
            cache_bytes: CACHE_BYTES,
        }
    }

    fn driver_options(&self, boot_counter: u64, scenario: &Starting) -> DriverOptions {
        DriverOptions {
            boot_counter,
            cluster: CLUSTER,
            cluster_name: "sim".into(),
            name: name(self.place),
            members: self.members.clone(),
            election_timeout_ticks: u64::from(ELECTION_TIMEOUT_TICKS),
            waiting_bytes: 1 << 20,
            waiting_count: 1024,
            limits: CommandLimits::default(),
            snapshot_every_bytes: scenario.snapshot_bytes,
            hash_every: HASH_EVERY,
        }
    }

    /// Time of one tick of its clock, in microseconds of the world.
    pub(super) fn tick_us(&self, now: Us) -> Us {
        let (until, percent) = self.clock;
        let percent = if now < until { percent.max(1) } else { 100 };
        kvd::driver::TICK_MS * 1_000 * 100 / percent
    }

    /// How much longer its disk takes for a sync at the moment.
    pub(super) fn extra_sync_us(&self, now: Us) -> Us {
        let (until, extra) = self.slow_disk;
        if now < until { extra } else { 0 }
    }
}

/// What every start of a node needs to know of the scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starting {
    pub(super) snapshot_bytes: u64,
}

fn new_identity(place: Place, members: &[MemberAddress]) -> NewIdentity {
    let member = |member: &MemberAddress| InitialMember {
        name: member.name.clone(),
        id: member.id,
        address: member.address.clone(),
    };
    NewIdentity {
        cluster: ClusterId(CLUSTER),
        cluster_name: "sim".into(),
        node: id(place).0,
        name: name(place),
        members: members.iter().map(member).collect(),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
