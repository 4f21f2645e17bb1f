//! Which requests are unanswered, and what each answer means for them. Pure: time comes in as an argument.
//!
//! Every write has a place in a session, so sending it again is harmless. A write is *failed* only if each attempt was
//! definitely refused; an attempt without an answer stays open for ever, because nobody knows where it is.
//!
//! ```text
//!   waiting --> sent --> answered
//!      ^         |
//!      +---------+  refused for now (the attempt is closed), or the link broke (the attempt stays open)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use crate::kv::command::{Custom, RangeQuery, command_crc};
use crate::kv::envelope::SessionRef;
use crate::wire::client::{
    Consistency, MemberAddress, Outcome, Refusal, Request, RequestFrame, Response,
};

/// How long a node may work on the first attempt of a request. A node that holds it back for want of a leader then says
/// so, definitely, and the client can ask another node. It doubles with each attempt, so that slowness alone does not
/// multiply the work.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Doublings of [`ATTEMPT`].
const ATTEMPT_DOUBLINGS_MAX: u32 = 6;
/// The node's time ends this long before the client's own, so that its last word still arrives.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// Names one request of the caller; grows with the order in which requests were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A write in the client's own session, after all writes before it.
    Write { command: Bytes },
    /// A write in a session of its own, of this name.
    NamedWrite { command: Bytes, name: u128 },
    /// A read.
    Read {
        consistency: Consistency,
        query: RangeQuery,
    },
    /// A question to a state machine.
    Question {
        consistency: Consistency,
        question: Custom,
    },
    /// Anything else that may be repeated without harm.
    Other(Request),
}

impl Ask {
    /// Whether an attempt that was never answered may have taken effect.
    fn changes_something(&self) -> bool {
        match self {
            Ask::Write { .. } | Ask::NamedWrite { .. } => true,
            Ask::Read { .. } | Ask::Question { .. } => false,
            Ask::Other(request) => request.changes_something(),
        }
    }
}

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The caller has its answer.
    Done(Ticket, Result<Response, Failed>),
    /// Try again after a while, with the same node.
    Later,
    /// Try again, with this node.
    At(MemberAddress),
    /// Try again, with another node.
    Elsewhere,
    /// The answer is of no interest any more.
    Nothing,
}

/// Why a request ended without what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Refused, and no attempt can have taken effect.
    Refused(Refusal),
    /// An attempt may have taken effect.
    Unknown(String),
    /// Time ran out, and no attempt can have taken effect; the last refusal, if any.
    TimedOut(Option<Refusal>),
}

/// A session of the client.
#[derive(Debug)]
struct Session {
    name: u128,
    id: Option<u64>,
    next: u64,
    /// Sequences that are given to unanswered writes.
    unanswered: BTreeSet<u64>,
}

#[derive(Debug)]
struct Unanswered {
    ask: Ask,
    deadline: Duration,
    /// Session and sequence; given when it is first sent.
    place: Option<(usize, u64)>,
    /// The frame of the attempt on this link.
    frame: Option<u64>,
    attempts: u32,
    /// Attempts that nobody has definitely refused.
    open: u32,
    last_refusal: Option<Refusal>,
}

/// All unanswered requests of one client.
#[derive(Debug)]
pub(crate) struct Requests {
    unanswered: BTreeMap<Ticket, Unanswered>,
    /// Those of them that are not on the link.
    waiting: BTreeSet<Ticket>,
    deadlines: BTreeSet<(Duration, Ticket)>,
    frames: HashMap<u64, Ticket>,
    sessions: Vec<Session>,
    /// Index of the session that new writes use.
    current: usize,
    next_frame: u64,
    next_ticket: u64,
    retry_overloaded: bool,
}

impl Requests {
    /// No requests yet; writes will use a session of this name.
    pub(crate) fn new(session_name: u128, retry_overloaded: bool) -> Requests {
        Requests {
            unanswered: BTreeMap::new(),
            waiting: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            frames: HashMap::new(),
            sessions: vec![Session::new(session_name)],
            current: 0,
            // 0 is the frame of the hello.
            next_frame: 1,
            next_ticket: 0,
            retry_overloaded,
        }
    }

    /// Takes a request, to be answered before `deadline`.
    pub(crate) fn add(&mut self, ask: Ask, deadline: Duration) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let place = match &ask {
            Ask::NamedWrite { name, .. } => {
                let mut session = Session::new(*name);
                let sequence = session.take_sequence();
                self.sessions.push(session);
                Some((self.sessions.len() - 1, sequence))
            }
            Ask::Write { .. } | Ask::Read { .. } | Ask::Question { .. } | Ask::Other(_) => None,
        };
        let request = Unanswered {
            ask,
            deadline,
            place,
            frame: None,
            attempts: 0,
            open: 0,
            last_refusal: None,
        };
        self.unanswered.insert(ticket, request);
        self.waiting.insert(ticket);
        self.deadlines.insert((deadline, ticket));
        ticket
    }

    /// Whether nothing is unanswered.
    pub(crate) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Number of requests on the link.
    pub(crate) fn in_flight(&self) -> usize {
        self.frames.len()
    }

    /// When the first request runs out of time.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The link is gone: everything that was on it may have arrived or not, and is sent again on the next link.
    pub(crate) fn on_link_lost(&mut self) {
        for (_, ticket) in self.frames.drain() {
            if let Some(request) = self.unanswered.get_mut(&ticket) {
                request.frame = None;
                self.waiting.insert(ticket);
            }
        }
    }

    /// Everything that is not on the link yet, in the order in which it was asked, and how long the node may take at most.
    pub(crate) fn take_to_send(&mut self, now: Duration) -> (Vec<RequestFrame>, Duration) {
        let mut frames = Vec::new();
        let mut longest = Duration::ZERO;
        if self.waits_for_old_session() {
            return (frames, longest);
        }
        for ticket in std::mem::take(&mut self.waiting) {
            let (frame, timeout) = self.attempt(ticket, now);
            longest = longest.max(timeout);
            frames.push(frame);
        }
        (frames, longest)
    }

    /// While answers of an expired session are outstanding, nothing new is numbered: it would overtake them.
    fn waits_for_old_session(&self) -> bool {
        // Almost always there has been only one session, and nothing to look for.
        self.current != 0
            && self.unanswered.values().any(|request| {
                let old = matches!(request.ask, Ask::Write { .. })
                    && request
                        .place
                        .is_some_and(|(session, _)| session != self.current);
                old && request.frame.is_some()
            })
    }

    fn attempt(&mut self, ticket: Ticket, now: Duration) -> (RequestFrame, Duration) {
        let id = self.next_frame;
        self.next_frame += 1;
        self.frames.insert(id, ticket);
        let current = self.current;
        let request = self
            .unanswered
            .get_mut(&ticket)
            .expect("the ticket was found among the unanswered");
        if request.place.is_none() && matches!(request.ask, Ask::Write { .. }) {
            request.place = Some((current, self.sessions[current].take_sequence()));
        }
        let doublings = request.attempts.min(ATTEMPT_DOUBLINGS_MAX);
        let remaining = request.deadline.saturating_sub(now);
        let timeout = (ATTEMPT * 2_u32.pow(doublings)).min(remaining.saturating_sub(ANSWER_MARGIN));
        request.frame = Some(id);
        request.attempts += 1;
        request.open += 1;
        let place = request.place;
        let timeout_ms = u32::try_from(timeout.as_millis())
            .unwrap_or(u32::MAX)
            .max(1);
        let body = match request.ask.clone() {
            Ask::Write { command } | Ask::NamedWrite { command, .. } => {
                let place = place.expect("a write that is sent has its place");
                self.write(place, command, timeout_ms)
            }
            Ask::Read { consistency, query } => Request::Read {
                consistency,
                query,
                timeout_ms,
            },
            Ask::Question {
                consistency,
                question,
            } => Request::Ask {
                consistency,
                question,
                timeout_ms,
            },
            Ask::Other(request) => request,
        };
        (RequestFrame { id, body }, timeout)
    }

    fn write(&self, (session, sequence): (usize, u64), command: Bytes, timeout_ms: u32) -> Request {
        Request::Write {
            session: self.sessions[session].reference(),
            sequence,
            done_below: self.done_below(session),
            crc: command_crc(&command),
            command,
            timeout_ms,
        }
    }

    /// Sequences of the session below this one were answered or given up: their results may go.
    fn done_below(&self, session: usize) -> u64 {
        let session = &self.sessions[session];
        session.unanswered.first().copied().unwrap_or(session.next)
    }

    /// Takes the answer to a frame. `fresh_name` names a new session, should the old one have expired.
    pub(crate) fn on_response(
        &mut self,
        frame: u64,
        response: Response,
        fresh_name: impl FnOnce() -> u128,
    ) -> Step {
        let Some(ticket) = self.frames.remove(&frame) else {
            return Step::Nothing;
        };
        let Some(request) = self.unanswered.get_mut(&ticket) else {
            return Step::Nothing;
        };
        request.frame = None;
        self.waiting.insert(ticket);
        if let Response::Refused(refusal) = response {
            return self.on_refusal(ticket, refusal, fresh_name);
        }
        if let Response::Written { session, .. } = &response {
            self.learn_session(ticket, *session);
        }
        self.done(ticket, Ok(response))
    }

    fn learn_session(&mut self, ticket: Ticket, id: u64) {
        if let Some((session, _)) = self
            .unanswered
            .get(&ticket)
            .and_then(|request| request.place)
        {
            self.sessions[session].id = Some(id).filter(|id| *id != 0);
        }
    }

    fn done(&mut self, ticket: Ticket, result: Result<Response, Failed>) -> Step {
        self.remove(ticket);
        Step::Done(ticket, result)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Unanswered> {
        let request = self.unanswered.remove(&ticket)?;
        self.waiting.remove(&ticket);
        self.deadlines.remove(&(request.deadline, ticket));
        if let Some(frame) = request.frame {
            self.frames.remove(&frame);
        }
        if let Some((session, sequence)) = request.place {
            self.sessions[session].unanswered.remove(&sequence);
        }
        Some(request)
    }

    fn on_refusal(
        &mut self,
        ticket: Ticket,
        refusal: Refusal,
        fresh_name: impl FnOnce() -> u128,
    ) -> Step {
        let Some(request) = self.unanswered.get_mut(&ticket) else {
            return Step::Nothing;
        };
        let is_write = request.ask.changes_something();
        // An expired session executes nothing, so this attempt is closed as well; earlier ones may have been executed.
        if refusal.outcome() == Outcome::Definite || refusal == Refusal::SessionExpired {
            request.open -= 1;
        }
        let open = request.open > 0 && is_write;
        request.last_refusal = Some(refusal.clone());
        match refusal {
            Refusal::NotLeader {
                leader: Some(leader),
            } => Step::At(leader),
            Refusal::NotLeader { leader: None }
            | Refusal::NoLeader { .. }
            | Refusal::NoQuorum { .. }
            | Refusal::Stopping
            | Refusal::OutcomeUnknown { .. } => Step::Elsewhere,
            Refusal::SequenceGap | Refusal::CommandCorrupt => Step::Later,
            Refusal::Overloaded { .. } if self.retry_overloaded => Step::Later,
            Refusal::SessionExpired if !open => self.begin_session(ticket, fresh_name),
            Refusal::Overloaded { .. }
            | Refusal::TooLarge { .. }
            | Refusal::NoSpace
            | Refusal::NotAuthorised { .. }
            | Refusal::BadRequest { .. }
            | Refusal::SessionExpired
            | Refusal::SequenceReused
            | Refusal::SequenceDone
            | Refusal::Unsupported
            | Refusal::MembersRefused { .. }
            | Refusal::MembersBusy { .. }
            | Refusal::NoMachine { .. }
            | Refusal::QuorumAtRisk { .. } => {
                let failed = if open {
                    Failed::Unknown(refusal.to_string())
                } else {
                    Failed::Refused(refusal)
                };
                self.done(ticket, Err(failed))
            }
        }
    }

    /// The write was certainly not executed and its session is gone: it gets a place in a new one. A session that the
    /// caller named is not replaced, because the name is what makes the caller's own retry safe.
    fn begin_session(&mut self, ticket: Ticket, fresh_name: impl FnOnce() -> u128) -> Step {
        let Some(request) = self.unanswered.get_mut(&ticket) else {
            return Step::Nothing;
        };
        if matches!(request.ask, Ask::NamedWrite { .. }) {
            return self.done(ticket, Err(Failed::Refused(Refusal::SessionExpired)));
        }
        let expired = request.place.take();
        if let Some((session, sequence)) = expired {
            self.sessions[session].unanswered.remove(&sequence);
        }
        if expired.is_some_and(|(session, _)| session == self.current) {
            self.sessions.push(Session::new(fresh_name()));
            self.current = self.sessions.len() - 1;
        }
        Step::Later
    }

    /// Ends everything whose time has run out.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(Ticket, Failed)> {
        let mut over = Vec::new();
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            let request = self
                .remove(ticket)
                .expect("a deadline belongs to an unanswered request");
            over.push((ticket, request.timed_out()));
        }
        over
    }

    /// Ends everything, because the client is closed.
    pub(crate) fn end(&mut self) -> Vec<(Ticket, Failed)> {
        self.expire(Duration::MAX)
    }
}

impl Unanswered {
    fn timed_out(self) -> Failed {
        let is_write = self.ask.changes_something();
        if !is_write || self.open == 0 {
            return Failed::TimedOut(self.last_refusal);
        }
        let why = match self.last_refusal {
            Some(refusal) => refusal.to_string(),
            None => "it was sent, and no answer came".to_owned(),
        };
        Failed::Unknown(why)
    }
}

impl Session {
    fn new(name: u128) -> Session {
        Session {
            name,
            id: None,
            next: 1,
            unanswered: BTreeSet::new(),
        }
    }

    fn take_sequence(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.unanswered.insert(sequence);
        sequence
    }

    fn reference(&self) -> SessionRef {
        match self.id {
            Some(id) => SessionRef::Id(id),
            None => SessionRef::Named(self.name),
        }
    }
}
