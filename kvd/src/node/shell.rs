//! The loop of one node.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::{LogIndex, NodeId};
use raft_log::ReadError;
use raft_log::fs::OsFs;
use raft_net::{Endpoint, Identity, Impairment, Lane, NetEvent, PeerAddress};
use tokio::sync::{mpsc, oneshot};

use super::clients::{Clients, NewClient};
use super::facts::FactFinder;
use super::log_thread::{FromLog, LogThread};
use super::scrub_thread::{self, ScrubThread};
use super::snapshot_tasks::SnapshotTasks;
use super::unix_socket::{self, SocketClient};
use super::{Asker, Control, Crash, admission, boot};
use crate::config::Config;
use crate::driver::{ClientId, Driver, Effect, Event, TICK_MS};
use crate::exit::{ExitCode, Failure};
use crate::identity::InitialMember;
use crate::kv::auth::{Principal, Role};
use crate::kv::store::ApplyRefusal;
use crate::machine::Machines;
use crate::wire::client::{MemberAddress, RequestFrame, Response};
use crate::wire::peer::{self, PeerMessage};

/// Events from tasks that may wait for the loop; a full channel slows the tasks down, and with them their clients.
const INBOX_MAX: usize = 4096;

/// Events of one kind taken in one turn before the effects are carried out.
const TURN_MAX: usize = 2048;

/// How long a stop may take, the hand-over included, before the node goes anyway.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last answers may take to reach their clients when the node stops.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// Connections on the admin socket that wait for the loop.
const SOCKET_BACKLOG: usize = 16;

/// How long to wait before entries that could not be read are asked for again.
const FETCH_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Ticks between two looks at the disk and the certificate.
const FACTS_TICKS: u64 = 100;

/// Where a started node listens.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) http: Option<SocketAddr>,
}

/// Runs a node on this thread until it is told to stop or fails.
pub(super) fn run(
    config: &Config,
    machines: Machines,
    controls: mpsc::WeakSender<Control>,
    inbox: mpsc::Receiver<Control>,
    ready: std::sync::mpsc::Sender<Bound>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::start("the runtime", &error))?;
    let result = runtime.block_on(async move {
        let shell = Shell::start(config, machines, Asker { controls }, &ready).await?;
        drop(ready);
        shell.run(inbox).await
    });
    // Tasks that still wait for a disk must not hold up a stop, nor a crash.
    runtime.shutdown_background();
    result
}

struct Shell {
    driver: Driver,
    endpoint: Arc<Endpoint>,
    network: mpsc::Receiver<NetEvent>,
    log: LogThread,
    _scrub: ScrubThread,
    reports: mpsc::UnboundedReceiver<FromLog>,
    inbox: mpsc::Receiver<Event>,
    tasks: SnapshotTasks,
    reader: raft_log::Reader<OsFs>,
    clients: Clients,
    /// Who is let in.
    members: Arc<admission::Durable>,
    on_socket: mpsc::Receiver<SocketClient>,
    facts: FactFinder,
    asked: HashMap<ClientId, oneshot::Sender<Response>>,
    staged: HashMap<u64, oneshot::Sender<()>>,
    last_staged: u64,
    cluster: u32,
    stopping: Option<tokio::time::Instant>,
}

/// What ended a wait of the loop.
enum Woken {
    Report(FromLog),
    Tick,
    Network(NetEvent),
    Event(Event),
    Socket(SocketClient),
    /// `None`: nobody holds the node any more.
    Control(Option<Control>),
    /// The driver has work left over from the turn before.
    More,
}

/// Why the loop ends.
enum End {
    Stopped,
    Crashed,
}

impl Shell {
    async fn start(
        config: &Config,
        machines: Machines,
        asker: Asker,
        ready: &std::sync::mpsc::Sender<Bound>,
    ) -> Result<Shell, Failure> {
        let booted = boot::boot(config, machines)?;
        let (tell_inbox, inbox) = mpsc::channel(INBOX_MAX);
        let (tell_reports, reports) = mpsc::unbounded_channel();
        let cluster = booted.cluster;
        let frame_bytes_max = booted.endpoint_options.client_frame_bytes_max;
        let admission = Arc::new(admission::Durable::new(booted.identity));
        let members = admission.clone();
        let (endpoint, network) = Endpoint::bind(
            booted.endpoint_options,
            booted.credentials,
            booted.hello,
            admission,
        )?;
        endpoint.set_peers(booted.peers);
        let address = endpoint.local_addr();
        let http = match config.http.listen {
            Some(listen) => {
                Some(crate::http::serve(listen, config.limits.request_bytes, asker).await?)
            }
            None => None,
        };
        let (newcomers, on_socket) = mpsc::channel(SOCKET_BACKLOG);
        if let Some(path) = &config.node.socket {
            unix_socket::listen(path, newcomers, frame_bytes_max)?;
        }
        let failures = tell_reports.clone();
        let log = LogThread::start(booted.worker, tell_reports)
            .map_err(|error| Failure::start("a thread", &error))?;
        let scrub = ScrubThread::start(&booted.reader, tell_inbox.clone())
            .map_err(|error| Failure::start("a thread", &error))?;
        let tasks = SnapshotTasks {
            dir: booted.snapshots,
            inbox: tell_inbox,
            failures,
            cluster,
        };
        // The receiver is `Node::start`, which waits for this.
        let _ = ready.send(Bound { address, http });
        Ok(Shell {
            driver: booted.driver,
            endpoint: Arc::new(endpoint),
            network,
            log,
            _scrub: scrub,
            reports,
            inbox,
            tasks,
            reader: booted.reader,
            clients: Clients::default(),
            members,
            on_socket,
            facts: FactFinder::new(&config.node.data, booted.certificate_expires),
            asked: HashMap::new(),
            staged: HashMap::new(),
            last_staged: 0,
            cluster,
            stopping: None,
        })
    }

    async fn run(mut self, mut controls: mpsc::Receiver<Control>) -> Result<(), Failure> {
        let end = self.serve(&mut controls).await;
        if let Ok(End::Stopped) = end {
            self.clients.drain(DRAIN_PATIENCE).await;
            self.endpoint.close("stopping").await;
        }
        let log = self.log;
        let stopped = matches!(end, Ok(End::Stopped));
        let ended =
            tokio::task::spawn_blocking(move || if stopped { log.close() } else { log.abandon() });
        let ended = ended.await.expect("ending the log does not panic");
        end?;
        Ok(ended?)
    }

    async fn serve(&mut self, controls: &mut mpsc::Receiver<Control>) -> Result<End, Failure> {
        let mut clock = tokio::time::interval(Duration::from_millis(TICK_MS));
        // After a pause the missed ticks are not made up for: a burst of them would look like an election timeout.
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let woken = tokio::select! {
                biased;
                Some(said) = self.reports.recv() => Woken::Report(said),
                _ = clock.tick() => Woken::Tick,
                Some(event) = self.network.recv() => Woken::Network(event),
                Some(event) = self.inbox.recv() => Woken::Event(event),
                Some(client) = self.on_socket.recv() => Woken::Socket(client),
                control = controls.recv() => Woken::Control(control),
                // Lets the connections have their turn before it goes on.
                () = tokio::task::yield_now(), if self.driver.has_more() => Woken::More,
            };
            let begun = Instant::now();
            if let Some(end) = self.take_turn(woken)? {
                return Ok(end);
            }
            self.facts.note_turn(begun.elapsed());
        }
    }

    /// Takes what woke the loop and all else that has arrived, and does what is to be done about it.
    fn take_turn(&mut self, woken: Woken) -> Result<Option<End>, Failure> {
        match woken {
            Woken::Report(said) => self.take_report(said)?,
            Woken::Tick => self.tick(),
            Woken::Network(event) => self.take_network(event)?,
            Woken::Event(event) => self.take_event(event),
            Woken::Socket(client) => self.clients.serve(client, self.tasks.inbox.clone()),
            Woken::Control(control) => {
                if self.take_control(control) {
                    return Ok(Some(End::Crashed));
                }
            }
            Woken::More => {}
        }
        self.drain()?;
        let effects = self.driver.turn();
        let done = self.carry_out(effects)?;
        let is_over = |limit: tokio::time::Instant| limit <= tokio::time::Instant::now();
        Ok((done || self.stopping.is_some_and(is_over)).then_some(End::Stopped))
    }

    /// Takes everything else that has arrived, so that it shares one batch, one sync and one write per stream.
    fn drain(&mut self) -> Result<(), Failure> {
        while let Ok(said) = self.reports.try_recv() {
            self.take_report(said)?;
        }
        for _ in 0..TURN_MAX {
            let Ok(event) = self.network.try_recv() else {
                break;
            };
            self.take_network(event)?;
        }
        for _ in 0..TURN_MAX {
            let Ok(event) = self.inbox.try_recv() else {
                break;
            };
            self.take_event(event);
        }
        Ok(())
    }

    fn tick(&mut self) {
        if self.driver.ticks().is_multiple_of(FACTS_TICKS) {
            self.driver.handle(Event::Facts(self.facts.find()));
        }
        self.driver.handle(Event::Tick);
    }

    fn take_event(&mut self, event: Event) {
        if let Event::ClientGone(id) = &event {
            self.clients.forget(*id);
        }
        self.driver.handle(event);
    }

    fn take_report(&mut self, said: FromLog) -> Result<(), Failure> {
        match said {
            FromLog::Report(report) => {
                self.facts.note(&report);
                self.driver.handle(Event::Log(report));
                Ok(())
            }
            FromLog::Failed(failure) => Err(failure.into()),
        }
    }

    fn take_network(&mut self, event: NetEvent) -> Result<(), Failure> {
        match event {
            NetEvent::Message { from, payload, .. } => match peer::decode(self.cluster, payload) {
                Ok(message) => self.driver.handle(Event::Peer {
                    from: NodeId(from),
                    message,
                }),
                Err(error) => tracing::warn!(from, %error, "message from a peer dropped"),
            },
            NetEvent::PeerUp { id, hello } => {
                self.driver.handle(Event::PeerUp {
                    peer: NodeId(id),
                    boot_counter: hello.boot_counter,
                    protocol: hello.version,
                });
            }
            NetEvent::PeerDown { id, reason } => {
                tracing::info!(peer = id, reason, "link down");
                self.driver.handle(Event::PeerDown { peer: NodeId(id) });
            }
            NetEvent::Client(stream) => match principal_of(&stream.identity) {
                Some(principal) => {
                    let newcomer = NewClient {
                        principal,
                        receiver: stream.receiver,
                        sender: stream.sender,
                    };
                    self.clients.serve(newcomer, self.tasks.inbox.clone());
                }
                None => {
                    tracing::warn!(remote = %stream.remote, "a node's certificate on a client stream refused")
                }
            },
            NetEvent::Snapshot(incoming) => {
                self.last_staged += 1;
                let ticket = self.last_staged;
                let (taken, told) = oneshot::channel();
                // Transfers that failed before they were staged have nobody who waits.
                self.staged.retain(|_, taken| !taken.is_closed());
                self.staged.insert(ticket, taken);
                self.tasks.receive(ticket, incoming, told);
            }
            NetEvent::RefusedBy { id, refusal } => return self.refused_by(id, &refusal),
            NetEvent::Refused { remote, reason } => {
                tracing::warn!(%remote, reason, "connection refused")
            }
            other => tracing::debug!(?other, "network event of an unknown kind"),
        }
        Ok(())
    }

    /// A peer does not let this node in. That its directory is older than one the peer has seen cannot mend itself.
    fn refused_by(&mut self, peer: u64, refusal: &raft_net::Refusal) -> Result<(), Failure> {
        tracing::warn!(peer, %refusal, "refused by a peer");
        if *refusal == raft_net::Refusal::Removed {
            self.driver.handle(Event::Removed { by: NodeId(peer) });
        }
        match Failure::of_refusal(peer, refusal) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Does what the owner of the node asks; true for a crash.
    fn take_control(&mut self, control: Option<Control>) -> bool {
        match control {
            None | Some(Control::Crash) => return true,
            Some(Control::Shutdown) => {
                self.stopping
                    .get_or_insert(tokio::time::Instant::now() + STOP_PATIENCE);
                self.driver.handle(Event::Shutdown);
            }
            Some(Control::Ask {
                principal,
                request,
                answer,
            }) => {
                let id = self.clients.number();
                self.asked.insert(id, answer);
                let frame = RequestFrame {
                    id: 0,
                    body: request,
                };
                self.driver.handle(Event::Request {
                    client: id,
                    principal,
                    frame,
                });
            }
            Some(Control::Connect(client)) => {
                self.clients.serve(*client, self.tasks.inbox.clone());
            }
            Some(Control::Impair(addresses)) => self.endpoint.impair(&Impairment {
                addresses,
                ..Impairment::default()
            }),
            Some(Control::Pause { stands, wait }) => {
                // Whoever asked has gone, and with it the other end: then the wait is over at once.
                let _ = stands.send(());
                // Blocks the thread on purpose: network, consensus and answers all run on it.
                return matches!(wait.recv(), Ok(Crash));
            }
            Some(Control::SlowDisk(delay)) => self.log.slow_down(delay),
        }
        false
    }

    /// Carries effects out in order; true when the driver has nothing left to do.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<bool, Failure> {
        let mut stopped = false;
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(to, &message),
                Effect::Log(job) => self.log.push(job),
                Effect::Fetch(fetch) => self.fetch(fetch),
                Effect::Answer { client, frame } => match self.asked.remove(&client) {
                    // Whoever asked may have stopped waiting.
                    Some(answer) => drop(answer.send(frame.body)),
                    None => self.clients.answer(client, frame),
                },
                Effect::WriteSnapshot(order) => self.tasks.write(*order),
                Effect::SendSnapshot { to, envelope } => {
                    self.tasks.send(self.endpoint.clone(), to, envelope)
                }
                Effect::SnapshotTaken { ticket } => {
                    if let Some(taken) = self.staged.remove(&ticket) {
                        // The task that waits for it may have lost its link.
                        let _ = taken.send(());
                    }
                }
                Effect::Scrub { client, id } => {
                    scrub_thread::scrub_now(
                        self.reader.clone(),
                        self.tasks.inbox.clone(),
                        client,
                        id,
                    );
                }
                Effect::Distrust(suspect) => self.tasks.distrust(suspect),
                Effect::Trust(id) => self.tasks.trust(id),
                Effect::Observe(event) => observe(&event),
                Effect::Members { members, removed } => self.follow_members(&members, &removed),
                Effect::Stopped => stopped = true,
                Effect::Halt { index, refusal } => return Err(not_applicable(index, &refusal)),
            }
        }
        Ok(stopped)
    }

    /// Remembers who the members are and who was one, dials new ones and lets go of removed ones.
    fn follow_members(&self, members: &[MemberAddress], removed: &BTreeSet<NodeId>) {
        let initial = |member: &MemberAddress| InitialMember {
            name: member.name.clone(),
            id: member.id,
            address: member.address.clone(),
        };
        self.members.record_members(
            members.iter().map(initial).collect(),
            removed.iter().map(|id| id.0).collect(),
            self.tasks.failures.clone(),
        );
        let peer = |member: &MemberAddress| PeerAddress {
            id: member.id,
            name: member.name.clone(),
            address: member.address.clone(),
        };
        self.endpoint.set_peers(members.iter().map(peer).collect());
    }

    /// Sends or drops: the protocol makes up for what is lost, and a full queue means that the peer is behind anyway.
    fn send(&self, to: NodeId, message: &PeerMessage) {
        let lane = if message.is_urgent() {
            Lane::Urgent
        } else {
            Lane::Bulk
        };
        if let Err(error) = self
            .endpoint
            .send(to.0, lane, peer::encode(self.cluster, message))
        {
            tracing::trace!(%to, %error, "message not sent");
        }
    }

    /// Reads old entries on another thread: a page fault must not stop the loop.
    fn fetch(&self, fetch: raft_core::Fetch) {
        let reader = self.reader.clone();
        let inbox = self.tasks.inbox.clone();
        tokio::spawn(async move {
            let range = fetch.range.start.0..fetch.range.end.0;
            let max_bytes = fetch.max_bytes;
            let read = tokio::task::spawn_blocking(move || reader.entries(range, max_bytes)).await;
            let read = read.expect("reading the log does not panic");
            let entries = match read.map(crate::recover::core_entries) {
                Ok(Ok(entries)) => Some(entries),
                // Purged meanwhile; the core decides what to do instead.
                Err(ReadError::Compacted { .. }) => None,
                Ok(Err(error)) => unreadable(&error.to_string()).await,
                Err(error) => {
                    if let ReadError::Corrupt(_) = &error {
                        let _ = inbox.send(Event::Faulty(vec![fetch.range.start])).await;
                    }
                    unreadable(&error.to_string()).await
                }
            };
            let _ = inbox.send(Event::Fetched { fetch, entries }).await;
        });
    }
}

/// A line in the log; what each batch of writes brings is for those who ask for it.
fn observe(event: &raft_core::Event) {
    use raft_core::Event::{Appended, Committed};
    if matches!(event, Appended { .. } | Committed { .. }) {
        tracing::debug!(target: "kvd::raft", "{event}");
    } else {
        tracing::info!(target: "kvd::raft", "{event}");
    }
}

/// The core asks again as soon as it hears of the failure. Without a pause an entry that cannot be had before it is repaired or
/// purged would keep a processor and the node's log busy.
async fn unreadable(error: &str) -> Option<Vec<raft_core::Entry>> {
    tracing::warn!(error, "entries not readable");
    tokio::time::sleep(FETCH_RETRY_DELAY).await;
    None
}

/// What a certificate makes of its bearer. Nodes talk on peer links and have no business here.
fn principal_of(identity: &Identity) -> Option<Principal> {
    match identity {
        Identity::Client { name, .. } => Some(Principal::new(Role::Client, name)),
        Identity::Admin { name, .. } => Some(Principal::new(Role::Admin, name)),
        Identity::Node { .. } => None,
    }
}

/// The end of a node whose program cannot apply an entry.
fn not_applicable(index: LogIndex, refusal: &ApplyRefusal) -> Failure {
    let (code, help) = if let ApplyRefusal::MachinePanicked { .. } = refusal {
        let help = "start a program whose state machine does not panic there";
        (ExitCode::MachineFailed, help)
    } else if let ApplyRefusal::NewerVersion { .. } = refusal {
        (ExitCode::FormatNewer, "start a newer kvd on this directory")
    } else {
        let help = "start a program with that state machine on this directory";
        (ExitCode::FormatNewer, help)
    };
    let mut failure = Failure::new(code, refusal).with_help(help);
    failure.index = Some(index.0);
    failure
}
