//! From a configuration to a driver over a recovered log: everything that can fail before a node serves.

use raft_core::{Configuration, NodeId};
use raft_log::fs::{Fs, OsFs};
use raft_log::{Binding, Options, Reader, WalError};
use raft_net::{Credentials, EndpointOptions, Hello, Identity as CertificateIdentity, PeerAddress};

use crate::config::Config;
use crate::driver::{Driver, DriverOptions, HASH_EVERY, TICK_MS, TURN_APPLY_BYTES};
use crate::exit::{ExitCode, Failure};
use crate::identity::Identity;
use crate::kv::limits::CommandLimits;
use crate::log_cache::CACHE_BYTES;
use crate::log_worker::LogWorker;
use crate::machine::Machines;
use crate::recover::{RecoverOptions, recover};
use crate::snapshots::SnapshotDir;
use crate::wire::client::MemberAddress;
use crate::wire::peer::PEER_VERSION;

/// Requests that may wait for an answer on one node.
const WAITING_COUNT_MAX: usize = 65_536;

/// Parts of the log's bound beside those between the kept snapshots: one that fills while the next snapshot is written, and
/// one for segments that are not full or not whole.
const LOG_PARTS_BESIDE: u64 = 2;

/// Damaged entries that are logged one by one at start; how many there are is logged in any case.
const TOLD_DAMAGE_MAX: usize = 16;

/// A node that could start serving.
pub(super) struct Booted {
    pub(super) cluster: u32,
    pub(super) identity: Identity<OsFs>,
    pub(super) credentials: Credentials,
    pub(super) certificate_expires: String,
    pub(super) endpoint_options: EndpointOptions,
    pub(super) hello: Hello,
    pub(super) peers: Vec<PeerAddress>,
    pub(super) worker: LogWorker<OsFs>,
    pub(super) reader: Reader<OsFs>,
    pub(super) snapshots: SnapshotDir<OsFs>,
    pub(super) driver: Driver,
}

/// Opens and checks everything; nothing has been sent when it returns.
pub(super) fn boot(config: &Config, machines: Machines) -> Result<Booted, Failure> {
    let credentials = Credentials::load(&config.tls.dir)?;
    let node = check_certificate(config, credentials.identity())?;
    let cluster = config.cluster.id.0;
    let fs = OsFs;
    let (mut identity, report) = Identity::open(&fs, &config.node.data, config.cluster.id, node)?;
    if let Some(report) = report {
        tracing::warn!(%report, "identity file mended");
    }
    let recovered = recover(&fs, &config.node.data, &recover_options(config, &identity))?;
    tracing::info!(log = %recovered.opened, "log recovered");
    for (name, version) in machines.iter() {
        tracing::info!(name, version, "state machine");
    }
    for corruption in recovered.opened.damage().take(TOLD_DAMAGE_MAX) {
        tracing::error!(%corruption, "damage found in the log");
    }
    // The directory is locked from here on, so nobody else can be counting.
    let (boot_counter, boot_id) = identity.begin_incarnation(&fs)?;
    let reader = recovered.wal.reader();
    let mut worker = LogWorker::new(recovered.wal);
    let mut space = worker.work()?;
    if space.prepared_bytes == 0 {
        // Now, and not when the first write waits for it.
        match worker.preparer().prepare_spare() {
            Ok(_) => space = worker.work()?,
            // The node serves reads, and refuses writes until there is space again.
            Err(error @ WalError::NoSpace { .. }) => tracing::warn!(%error, "no space for the log"),
            Err(error) => return Err(error.into()),
        }
    }
    let core = raft_core::Node::new(core_config(config, node, fs.random_u64()), recovered.cache)
        .map_err(|error| Failure::new(ExitCode::Configuration, error))?;
    let mut driver = Driver::new(
        driver_options(config, &identity, boot_counter),
        core,
        recovered.store,
        &space,
    );
    driver.set_machines(machines);
    if let Some(suspect) = recovered.suspect {
        driver.start_suspect(suspect);
    }
    Ok(Booted {
        cluster,
        hello: Hello {
            cluster: config.cluster.id,
            node,
            boot_counter,
            boot_id,
            cluster_epoch: identity.epoch(),
            version: u16::from(PEER_VERSION),
        },
        endpoint_options: endpoint_options(config),
        peers: peers(&identity),
        snapshots: recovered.snapshots,
        certificate_expires: humantime::format_rfc3339_seconds(credentials.expires()).to_string(),
        credentials,
        identity,
        worker,
        reader,
        driver,
    })
}

/// The certificate must be the one of the node that the configuration names; gives the node's id.
fn check_certificate(config: &Config, identity: &CertificateIdentity) -> Result<u64, Failure> {
    if let CertificateIdentity::Node { cluster, name, id } = identity
        && *cluster == config.cluster.id
        && *name == config.node.name
    {
        return Ok(*id);
    }
    let what = format!(
        "the certificate is of {identity}, the configuration of node {} of cluster {}",
        config.node.name, config.cluster.id
    );
    let file = config.tls.dir.join("node.pem");
    Err(Failure::new(ExitCode::Configuration, what).in_file(file))
}

fn recover_options(config: &Config, identity: &Identity<OsFs>) -> RecoverOptions {
    let voters = identity.members().iter().map(|member| NodeId(member.id));
    RecoverOptions {
        binding: Binding {
            cluster: identity.cluster().0,
            node: identity.node(),
        },
        wal: Options {
            segment_bytes: config.log.segment_bytes,
            max_bytes: config.log.max_bytes,
            reserve_bytes: config.log.reserve_bytes,
            ..Options::default()
        },
        snapshots_kept: config.snapshot.keep,
        founding: Configuration::new(voters),
        members: members(identity),
        cache_bytes: CACHE_BYTES,
    }
}

fn members(identity: &Identity<OsFs>) -> Vec<MemberAddress> {
    let members = identity.members().iter();
    members
        .map(|member| MemberAddress {
            name: member.name.clone(),
            id: member.id,
            address: member.address.clone(),
        })
        .collect()
}

fn core_config(config: &Config, node: u64, seed: u64) -> raft_core::Config {
    let mut core = raft_core::Config::new(NodeId(node), seed);
    core.election_timeout_ticks = ticks(config.raft.election_timeout);
    core.heartbeat_ticks = ticks(config.raft.heartbeat);
    core.max_uncommitted_bytes = config.limits.uncommitted_bytes;
    core.max_apply_bytes = TURN_APPLY_BYTES;
    core
}

fn ticks(duration: std::time::Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(u128::from(TICK_MS)).max(1);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

fn driver_options(config: &Config, identity: &Identity<OsFs>, boot_counter: u64) -> DriverOptions {
    DriverOptions {
        boot_counter,
        cluster: identity.cluster().0,
        cluster_name: config.cluster.name.clone(),
        name: config.node.name.clone(),
        members: members(identity),
        election_timeout_ticks: u64::from(ticks(config.raft.election_timeout)),
        waiting_bytes: config.limits.uncommitted_bytes,
        waiting_count: WAITING_COUNT_MAX,
        limits: CommandLimits {
            key_bytes: usize::try_from(config.limits.key_bytes).unwrap_or(usize::MAX),
            value_bytes: usize::try_from(config.limits.value_bytes).unwrap_or(usize::MAX),
            txn_ops: config.limits.txn_ops,
        },
        snapshot_every_bytes: snapshot_every_bytes(config),
        hash_every: HASH_EVERY,
    }
}

/// The log is kept from the oldest kept snapshot on, and must stay within its bound: at the bound nothing is proposed, so
/// nothing is applied, so no snapshot would ever be due again.
fn snapshot_every_bytes(config: &Config) -> u64 {
    let kept = u64::try_from(config.snapshot.keep).unwrap_or(u64::MAX);
    let parts = kept.saturating_add(LOG_PARTS_BESIDE);
    let share = config.log.max_bytes / parts;
    config.snapshot.every_bytes.min(share.max(1))
}

fn endpoint_options(config: &Config) -> EndpointOptions {
    let mut options = EndpointOptions::new(config.node.listen);
    options.clients_max = config.limits.clients;
    options.clients_per_identity_max = config.limits.clients_per_identity;
    options
}

fn peers(identity: &Identity<OsFs>) -> Vec<PeerAddress> {
    let others = identity
        .known_members()
        .iter()
        .filter(|member| member.id != identity.node());
    others
        .map(|member| PeerAddress {
            id: member.id,
            name: member.name.clone(),
            address: member.address.clone(),
        })
        .collect()
}
