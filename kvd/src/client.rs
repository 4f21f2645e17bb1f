//! Talking to a cluster: finds a node that answers, keeps one stream to it, and repeats what was not answered.
//!
//! Every write has a number in a session that the cluster remembers, so a repetition never takes effect twice. A call
//! therefore ends in one of three ways: it was done; it was certainly not done; or, when time ran out after some attempt
//! had left, nobody knows ([`ClientError::Unknown`]).
//!
//! A [`Client`] must be used within a tokio runtime; one thread is enough. It can be cloned, and all clones share one
//! stream and one session. Writes that are submitted one after the other take effect in that order.
//!
//! ```no_run
//! use std::time::Duration;
//! use kvd::client::{Client, ClientOptions};
//! use kvd::kv::command::{Op, RangeQuery};
//! use kvd::wire::client::Consistency;
//!
//! # async fn example(credentials: raft_net::Credentials) -> Result<(), kvd::client::ClientError> {
//! let client = Client::new(ClientOptions {
//!     endpoints: vec!["10.0.0.1:7400".to_owned(), "10.0.0.2:7400".to_owned()],
//!     credentials: Some(credentials),
//!     timeout: Duration::from_secs(5),
//!     ..ClientOptions::default()
//! });
//! let put = Op::Put { key: "color".into(), value: "red".into(), want_previous: false };
//! client.write(put.into()).await?;
//! let found = client.read(RangeQuery::key("color"), Consistency::Linearizable).await?;
//! assert_eq!(found.result.items[0].value, "red");
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod book;
mod dial;
mod engine;
mod error;
mod link;
mod requests;
mod round;
mod survey;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_net::Credentials;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::kv::command::{Command, CommandResult, Custom, RangeQuery, RangeResult};
use crate::machine::{Handle, StateMachine};
use crate::wire::client::{
    Consistency, Member, MemberChange, MemberLine, Outcome, Quorum, Refusal, Request, Response,
    ScrubReport,
};

pub use dial::Greeting;
pub use error::{ClientError, Evidence, Finding, Found};
pub use survey::{NodeReport, Survey};

use book::Book;
#[cfg(feature = "server")]
pub(crate) use dial::{Pending, Target};
#[cfg(feature = "server")]
pub(crate) use link::Link;

pub(crate) use dial::Dial;
use dial::Network;
use engine::{Ended, Engine, Manners, Order, Reply};
use requests::{Ask, Failed};

/// Writes that may be unanswered at the same time; the cluster keeps the results of twice as many per session.
pub const IN_FLIGHT_MAX: usize = 512;

/// Longest part of a call's time that is kept for finding out what is wrong.
const SURVEY_MAX: Duration = Duration::from_millis(500);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `host:port` of nodes, or `unix:/path` of an admin socket; one that answers is enough.
    pub endpoints: Vec<String>,
    /// Certificate, key and authority. Only the admin socket needs none.
    pub credentials: Option<Credentials>,
    /// How long a call may take, repetitions included.
    pub timeout: Duration,
    /// Only the given endpoints are dialled, never a member that they name: for reading what one node holds.
    pub pinned: bool,
    /// Goes to the leader before the first request: worth it for many writes.
    pub prefer_leader: bool,
    /// Waits and repeats when the cluster is overloaded, instead of ending the call.
    pub retry_overloaded: bool,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            endpoints: Vec::new(),
            credentials: None,
            timeout: Duration::from_secs(5),
            pinned: false,
            prefer_leader: false,
            retry_overloaded: false,
        }
    }
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// What was found.
    pub result: RangeResult,
    /// Index of the last entry applied where it was read.
    pub applied: u64,
    /// It may be stale: it was read from one node, without asking the others.
    pub local: bool,
}

/// A connection to a cluster.
#[derive(Clone)]
pub struct Client {
    orders: mpsc::UnboundedSender<Order>,
    dial: Arc<dyn Dial>,
    options: Arc<ClientOptions>,
    window: Arc<Semaphore>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.options.endpoints)
            .finish_non_exhaustive()
    }
}

/// A write on its way.
#[derive(Debug)]
pub struct PendingWrite {
    client: Client,
    reply: oneshot::Receiver<Reply>,
    began: Instant,
    _window: OwnedSemaphorePermit,
}

impl Client {
    /// A client that connects with its first request. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(options: ClientOptions) -> Client {
        let network = Network {
            credentials: options.credentials.clone(),
            options: raft_net::ClientOptions::default(),
        };
        Client::over(Arc::new(network), options)
    }

    pub(crate) fn over(dial: Arc<dyn Dial>, options: ClientOptions) -> Client {
        let (orders, inbox) = mpsc::unbounded_channel();
        let manners = Manners {
            retry_overloaded: options.retry_overloaded,
            prefer_leader: options.prefer_leader,
            session_name: rand::random(),
            cluster: cluster_of(&options),
        };
        let book = Book::new(&options.endpoints, options.pinned);
        tokio::spawn(Engine::new(dial.clone(), inbox, book, manners).run());
        Client {
            orders,
            dial,
            options: Arc::new(options),
            window: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        }
    }

    /// Connects, unless it is connected, and returns what the node said.
    ///
    /// # Errors
    /// Nobody could be reached, or the certificate was rejected.
    pub async fn connect(&self) -> Result<Greeting, ClientError> {
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        let timeout = self.options.timeout;
        self.order(Order::Greeting { timeout, reply })?;
        let answer = answer.await.map_err(|_| ClientError::Closed)?;
        answer.map_err(|findings| unreachable_error(findings, began.elapsed()))
    }

    /// Carries out a write and waits for its result.
    ///
    /// # Errors
    /// See [`ClientError`]: only [`ClientError::Unknown`] leaves it open whether the write took effect.
    pub async fn write(&self, command: Command) -> Result<CommandResult, ClientError> {
        self.submit(command).await?.result().await
    }

    /// Like [`Client::write`] in a session of this name: repeating it with the same name, even from another process,
    /// returns the first result and never takes effect twice, for as long as the cluster remembers the session.
    ///
    /// # Errors
    /// As for [`Client::write`].
    pub async fn write_named(
        &self,
        command: Command,
        name: u128,
    ) -> Result<CommandResult, ClientError> {
        let command = command.encode();
        let pending = self.submit_ask(Ask::NamedWrite { command, name }).await?;
        pending.result().await
    }

    /// Sends a write and returns at once; it takes effect after all writes that were submitted before. Waits while
    /// [`IN_FLIGHT_MAX`] writes are unanswered.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn submit(&self, command: Command) -> Result<PendingWrite, ClientError> {
        let command = command.encode();
        self.submit_ask(Ask::Write { command }).await
    }

    async fn submit_ask(&self, ask: Ask) -> Result<PendingWrite, ClientError> {
        let permit = self.window.clone().acquire_owned().await;
        let window = permit.map_err(|_| ClientError::Closed)?;
        Ok(PendingWrite {
            client: self.clone(),
            began: Instant::now(),
            reply: self.ask(ask)?,
            _window: window,
        })
    }

    /// Reads.
    ///
    /// # Errors
    /// See [`ClientError`]. A read changes nothing, so its failure is never unknown.
    pub async fn read(
        &self,
        query: RangeQuery,
        consistency: Consistency,
    ) -> Result<ReadAnswer, ClientError> {
        let answer = self.request(Ask::Read { consistency, query }).await?;
        let Response::Range {
            result,
            applied,
            local,
        } = answer
        else {
            return Err(unexpected());
        };
        Ok(ReadAnswer {
            result,
            applied,
            local,
        })
    }

    /// A state machine of the cluster, with its types.
    #[must_use]
    pub fn machine<M: StateMachine>(&self) -> Handle<M> {
        Handle::new(self.clone())
    }

    /// Asks a state machine; the reply as it encodes it, and the last index that it had applied.
    pub(crate) async fn ask_machine(
        &self,
        question: Custom,
        consistency: Consistency,
    ) -> Result<(Bytes, u64), ClientError> {
        let ask = Ask::Question {
            consistency,
            question,
        };
        let Response::Replied { reply, applied, .. } = self.request(ask).await? else {
            return Err(unexpected());
        };
        Ok((reply, applied))
    }

    /// The members as the connected node knows them, with the id of the leader.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(&self) -> Result<(Vec<Member>, Option<u64>), ClientError> {
        let answer = self.request(Ask::Other(Request::Members)).await?;
        let Response::Members { members, leader } = answer else {
            return Err(unexpected());
        };
        Ok((members, leader))
    }

    /// The members as the connected node knows them, and what decisions take.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn member_table(&self) -> Result<MemberTable, ClientError> {
        let answer = self.request(Ask::Other(Request::MemberTable)).await?;
        let Response::MemberTable {
            members,
            leader,
            quorum,
        } = answer
        else {
            return Err(unexpected());
        };
        Ok(MemberTable {
            members,
            leader,
            quorum,
        })
    }

    /// Changes the members, all in one step; tells what decisions took before and take afterwards. Returns when the change is
    /// in force and committed: what was added is a learner then, and becomes a voter by itself.
    ///
    /// # Errors
    /// See [`ClientError`]. If the outcome is unknown, the same change may be asked for again.
    pub async fn change_members(
        &self,
        changes: Vec<MemberChange>,
        dry_run: bool,
    ) -> Result<(Quorum, Quorum), ClientError> {
        let timeout = self.options.timeout - self.survey_time();
        let request = Request::ChangeMembers {
            changes,
            dry_run,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        };
        let answer = self.request(Ask::Other(request)).await?;
        let Response::MembersChanged { before, after } = answer else {
            return Err(unexpected());
        };
        Ok((before, after))
    }

    /// Whether the cluster serves, as the connected node sees it, and reasons.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn health(&self) -> Result<(bool, Vec<String>), ClientError> {
        let answer = self.request(Ask::Other(Request::Health)).await?;
        let Response::Health { healthy, reasons } = answer else {
            return Err(unexpected());
        };
        Ok((healthy, reasons))
    }

    /// Hands leadership over: to the node of this name, or to the one best suited.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn transfer_leader(&self, to: Option<String>) -> Result<(), ClientError> {
        self.done(Request::TransferLeader { to }).await
    }

    /// Takes a snapshot on the connected node and discards its log before it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn discard_log(&self) -> Result<(), ClientError> {
        self.done(Request::DiscardLog).await
    }

    /// Reads the log of the connected node through: how many entries it has, their bytes, and the damaged ones.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scrub(&self) -> Result<ScrubReport, ClientError> {
        let answer = self.request(Ask::Other(Request::Scrub)).await?;
        let Response::Scrubbed(report) = answer else {
            return Err(unexpected());
        };
        Ok(report)
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        let answer = self.request(Ask::Other(request)).await?;
        let Response::Done = answer else {
            return Err(unexpected());
        };
        Ok(())
    }

    /// Asks every member for its state, each directly.
    pub async fn survey(&self) -> Survey {
        self.survey_within(self.options.timeout).await
    }

    async fn survey_within(&self, budget: Duration) -> Survey {
        survey::survey(
            self.dial.clone(),
            &self.options.endpoints,
            cluster_of(&self.options),
            budget,
        )
        .await
    }

    /// Closes the connection and tells the node so. What is unanswered ends as if its time had run out.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.order(Order::Close(done)).is_ok() {
            // The engine may have ended already.
            let _ = closed.await;
        }
    }

    fn order(&self, order: Order) -> Result<(), ClientError> {
        self.orders.send(order).map_err(|_| ClientError::Closed)
    }

    fn ask(&self, ask: Ask) -> Result<oneshot::Receiver<Reply>, ClientError> {
        let (reply, answer) = oneshot::channel();
        let timeout = self.options.timeout - self.survey_time();
        self.order(Order::Ask {
            ask,
            timeout,
            reply,
        })?;
        Ok(answer)
    }

    async fn request(&self, ask: Ask) -> Result<Response, ClientError> {
        let began = Instant::now();
        let answer = self.ask(ask)?;
        match answer.await.map_err(|_| ClientError::Closed)? {
            Ok(response) => Ok(response),
            Err(ended) => Err(self.explain(ended, began).await),
        }
    }

    /// What is kept of a call's time for finding out what is wrong.
    fn survey_time(&self) -> Duration {
        (self.options.timeout / 5).min(SURVEY_MAX)
    }

    /// Turns the end of a request into an error with evidence.
    async fn explain(&self, ended: Ended, began: Instant) -> ClientError {
        let refusal = match ended.failed {
            Failed::Refused(Refusal::NotAuthorised { why }) => {
                let evidence = Evidence {
                    findings: ended.findings,
                    waited: began.elapsed(),
                    voters: None,
                };
                return ClientError::NotAuthorised { why, evidence };
            }
            Failed::Refused(refusal) => return ClientError::Refused(refusal),
            Failed::Unknown(why) => {
                let evidence = self.evidence(began).await;
                return ClientError::Unknown { why, evidence };
            }
            Failed::TimedOut(refusal) => refusal,
        };
        if refusal.is_none() && ended.findings.iter().any(is_rejection) {
            return unreachable_error(ended.findings, began.elapsed());
        }
        let mut evidence = self.evidence(began).await;
        if refusal.is_none() && evidence.answered() == 0 {
            merge(&mut evidence, ended.findings);
            return unreachable_error(evidence.findings, evidence.waited);
        }
        match refusal {
            Some(refusal @ Refusal::Overloaded { .. }) => ClientError::Refused(refusal),
            Some(refusal) => ClientError::NoQuorum {
                detail: detail_of(&refusal),
                evidence,
            },
            None => ClientError::NoQuorum {
                detail: "no answer in time".to_owned(),
                evidence,
            },
        }
    }

    async fn evidence(&self, began: Instant) -> Evidence {
        let survey = self.survey_within(self.survey_time()).await;
        survey.evidence(began.elapsed())
    }
}

/// The members as one node knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTable {
    /// All members.
    pub members: Vec<MemberLine>,
    /// Id of the leader that the node knows.
    pub leader: Option<u64>,
    /// What decisions take.
    pub quorum: Quorum,
}

impl PendingWrite {
    /// Waits for the result.
    ///
    /// # Errors
    /// As for [`Client::write`].
    pub async fn result(self) -> Result<CommandResult, ClientError> {
        match self.reply.await.map_err(|_| ClientError::Closed)? {
            Ok(Response::Written { result, .. }) => Ok(result),
            Ok(_) => Err(unexpected()),
            Err(ended) => Err(self.client.explain(ended, self.began).await),
        }
    }
}

fn cluster_of(options: &ClientOptions) -> Option<u32> {
    let credentials = options.credentials.as_ref()?;
    Some(credentials.identity().cluster().0)
}

/// What a refusal adds to "no quorum".
fn detail_of(refusal: &Refusal) -> String {
    match refusal.outcome() {
        Outcome::Definite => refusal.to_string(),
        Outcome::Unknown => "no answer in time".to_owned(),
    }
}

fn is_rejection(finding: &Finding) -> bool {
    matches!(finding.found, Found::CertificateRejected(_))
}

/// Findings of the call about endpoints that the survey did not come to know.
fn merge(evidence: &mut Evidence, findings: Vec<Finding>) {
    for finding in findings {
        let known = evidence
            .findings
            .iter_mut()
            .find(|known| known.endpoint == finding.endpoint);
        match known {
            // A reason is worth more than silence.
            Some(known) if known.found == Found::TimedOut => known.found = finding.found,
            Some(_) => {}
            None => evidence.findings.push(finding),
        }
    }
}

fn unreachable_error(findings: Vec<Finding>, waited: Duration) -> ClientError {
    let rejected = findings.iter().find(|finding| is_rejection(finding));
    let why = rejected.map(ToString::to_string);
    let evidence = Evidence {
        findings,
        waited,
        voters: None,
    };
    match why {
        Some(why) => ClientError::NotAuthorised { why, evidence },
        None => ClientError::Unreachable(evidence),
    }
}

/// The node speaks the protocol and answers another question than the one that was asked.
fn unexpected() -> ClientError {
    ClientError::Refused(Refusal::Unsupported)
}
