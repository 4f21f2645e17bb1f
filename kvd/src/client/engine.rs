//! The task behind a [`Client`](super::Client): one link at a time, many requests on it.
//!
//! It owns the requests, dials when there is something to ask, sends everything unanswered again after a link broke, and
//! leaves a node that says nothing or says that it cannot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::book::Book;
use super::dial::{Dial, Greeting, Target, reach};
use super::error::{Finding, Found};
use super::link::Link;
use super::requests::{Ask, Failed, Requests, Step, Ticket};
use super::round::{Round, STAGGER};
use crate::wire::client::{MemberAddress, Request, RequestFrame, Response, ResponseFrame};

/// How long one dial may take, hello included.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// Silence after which it is looked up whether the node's port is still open: a killed process is noticed by that.
const PROBE_AFTER: Duration = Duration::from_millis(100);
/// Beyond the time that a node was given it may be silent this long before it is left.
const SILENCE_MAX: Duration = Duration::from_millis(300);
/// How long a node that is being left may take for the answers that are on their way.
const LEAVING_MAX: Duration = Duration::from_millis(100);
/// How often a client at work asks who the members are: all that it knew may be replaced while it stays where it is.
const MEMBERS_EVERY: Duration = Duration::from_secs(2);
/// The frame of the hello, and of the question for the members; requests have others.
const OWN_FRAME: u64 = 0;
/// Waiting time after a refusal, doubled up to the largest.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// See [`BACKOFF_MIN`].
const BACKOFF_MAX: Duration = Duration::from_millis(400);
/// The loop looks at its clocks at least this often.
const IDLE_WAKE: Duration = Duration::from_secs(3600);

/// The end of one request, as the caller gets it.
pub(crate) type Reply = Result<Response, Ended>;

/// Why a request ended without an answer, and what had been found until then.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) failed: Failed,
    pub(crate) findings: Vec<Finding>,
}

/// Who waits for a hello: the hello, or what was found where there was none.
pub(crate) type GreetingReply = oneshot::Sender<Result<Greeting, Vec<Finding>>>;

/// What the caller asks the engine.
pub(crate) enum Order {
    /// A request.
    Ask {
        ask: Ask,
        timeout: Duration,
        reply: oneshot::Sender<Reply>,
    },
    /// What the connected node said in its hello; dials if needed.
    Greeting {
        timeout: Duration,
        reply: GreetingReply,
    },
    /// Close the link, tell the node, end the task.
    Close(oneshot::Sender<()>),
}

/// How the engine goes about it.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) retry_overloaded: bool,
    pub(crate) prefer_leader: bool,
    pub(crate) session_name: u128,
    /// The cluster whose certificate we hold.
    pub(crate) cluster: Option<u32>,
}

struct Connected {
    link: Link,
    target: Target,
    greeting: Greeting,
    heard: Instant,
    /// Until when silence is no reason to leave.
    patience: Instant,
    probed: bool,
    /// Nothing more is asked here; the answers that are on their way are waited for until then.
    leaving: Option<Instant>,
    /// When it last said or was last asked who the members are.
    members_asked: Instant,
    /// It was asked and has not answered.
    members_awaited: bool,
}

impl Connected {
    fn ask_members(&mut self) {
        let question = RequestFrame {
            id: OWN_FRAME,
            body: Request::Members,
        };
        self.link.send(question.encode());
        self.members_asked = Instant::now();
        self.members_awaited = true;
    }
}

/// What a background task found.
enum Report {
    Dialled(Target, Box<Result<(Link, Greeting), Found>>),
    PortClosed(Target),
    PortSilent,
}

pub(crate) struct Engine {
    dial: Arc<dyn Dial>,
    orders: mpsc::UnboundedReceiver<Order>,
    book: Book,
    manners: Manners,
    requests: Requests,
    replies: HashMap<Ticket, oneshot::Sender<Reply>>,
    greetings: Vec<(Instant, GreetingReply)>,
    connected: Option<Connected>,
    tasks: JoinSet<Report>,
    round: Round,
    /// Nothing is sent or dialled before.
    not_before: Instant,
    backoff: Duration,
    began: Instant,
    /// The client still exists.
    open: bool,
    closing: Option<oneshot::Sender<()>>,
}

impl Engine {
    pub(crate) fn new(
        dial: Arc<dyn Dial>,
        orders: mpsc::UnboundedReceiver<Order>,
        book: Book,
        manners: Manners,
    ) -> Engine {
        let began = Instant::now();
        Engine {
            dial,
            orders,
            book,
            requests: Requests::new(manners.session_name, manners.retry_overloaded),
            manners,
            replies: HashMap::new(),
            greetings: Vec::new(),
            connected: None,
            tasks: JoinSet::new(),
            round: Round::default(),
            not_before: began,
            backoff: BACKOFF_MIN,
            began,
            open: true,
            closing: None,
        }
    }

    /// Runs until it is told to close, or until its client is gone and everything is answered.
    pub(crate) async fn run(mut self) {
        while self.open || !self.requests.is_empty() {
            if let Some(done) = self.closing.take() {
                return self.close(done).await;
            }
            self.expire();
            self.leave_if_time();
            self.send();
            self.dial_if_needed();
            let wake = self.next_wake();
            tokio::select! {
                order = self.orders.recv(), if self.open => self.take_orders(order),
                frames = frames_of(&mut self.connected) => self.take_frames(frames),
                Some(report) = self.tasks.join_next() => {
                    self.take_report(report.expect("dialling does not panic"));
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes one order and everything else that has been ordered by now, so that it leaves in one write.
    fn take_orders(&mut self, first: Option<Order>) {
        let Some(first) = first else {
            self.open = false;
            return;
        };
        self.take_order(first);
        while let Ok(order) = self.orders.try_recv() {
            self.take_order(order);
        }
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Ask {
                ask,
                timeout,
                reply,
            } => {
                let ticket = self.requests.add(ask, self.now() + timeout);
                self.replies.insert(ticket, reply);
            }
            Order::Greeting { timeout, reply } => match &self.connected {
                Some(connected) => drop(reply.send(Ok(connected.greeting.clone()))),
                None => self.greetings.push((Instant::now() + timeout, reply)),
            },
            Order::Close(done) => self.closing = Some(done),
        }
    }

    fn expire(&mut self) {
        for (ticket, failed) in self.requests.expire(self.now()) {
            self.reply(ticket, Err(failed));
        }
        let now = Instant::now();
        let over = self
            .greetings
            .extract_if(.., |(deadline, _)| *deadline <= now);
        for (_, reply) in over {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Err(self.book.findings()));
        }
    }

    fn reply(&mut self, ticket: Ticket, result: Result<Response, Failed>) {
        let Some(reply) = self.replies.remove(&ticket) else {
            return;
        };
        let result = result.map_err(|failed| Ended {
            failed,
            findings: self.book.findings(),
        });
        // Whoever asked may have stopped waiting.
        let _ = reply.send(result);
    }

    fn send(&mut self) {
        let Some(connected) = &mut self.connected else {
            return;
        };
        if Instant::now() < self.not_before || connected.leaving.is_some() {
            return;
        }
        let idle = self.requests.in_flight() == 0;
        let (frames, longest) = self.requests.take_to_send(self.began.elapsed());
        if frames.is_empty() {
            return;
        }
        let now = Instant::now();
        if idle {
            // Silence counts from the question on.
            connected.heard = now;
            connected.probed = false;
        }
        connected.patience = connected.patience.max(now + longest + SILENCE_MAX);
        for frame in frames {
            connected.link.send(frame.encode());
        }
        if now >= connected.members_asked + MEMBERS_EVERY {
            connected.ask_members();
        }
    }

    fn take_frames(&mut self, frames: Result<Vec<bytes::Bytes>, String>) {
        let frames = match frames {
            Ok(frames) => frames,
            Err(reason) => return self.lose_link(Found::Lost(reason)),
        };
        if let Some(connected) = &mut self.connected {
            connected.heard = Instant::now();
            connected.probed = false;
        }
        for frame in frames {
            match ResponseFrame::decode(&frame) {
                Ok(response) if response.id == OWN_FRAME => self.take_members(response.body),
                Ok(response) => self.take_response(response),
                Err(error) => {
                    return self
                        .lose_link(Found::Lost(format!("not the client protocol: {error}")));
                }
            }
        }
    }

    /// A node that may not say who the members are has at least answered.
    fn take_members(&mut self, answer: Response) {
        if let Some(connected) = &mut self.connected {
            connected.members_awaited = false;
        }
        if let Response::Members { members, .. } = answer {
            let members: Vec<_> = members.into_iter().map(|member| member.address).collect();
            self.book.learn(&members);
        }
    }

    fn take_response(&mut self, response: ResponseFrame) {
        match self
            .requests
            .on_response(response.id, response.body, rand::random)
        {
            Step::Done(ticket, result) => {
                self.backoff = BACKOFF_MIN;
                self.reply(ticket, result);
            }
            Step::Later => self.back_off(),
            Step::At(leader) => {
                self.back_off();
                self.go_to(&leader);
            }
            Step::Elsewhere => {
                self.back_off();
                if self.book.has_alternative() {
                    self.begin_to_leave();
                }
            }
            Step::Nothing => {}
        }
    }

    fn back_off(&mut self) {
        let now = Instant::now();
        if now < self.not_before {
            return;
        }
        let jitter = rand::random_range(0.5..1.0);
        self.not_before = now + self.backoff.mul_f64(jitter);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Goes to the leader that a node has named, unless that is where we are.
    fn go_to(&mut self, leader: &MemberAddress) {
        let there = self
            .connected
            .as_ref()
            .is_some_and(|connected| connected.greeting.node == leader.name);
        if there {
            return;
        }
        self.begin_to_leave();
        self.book.prefer(leader);
    }

    /// Asks nothing more of a node that works but cannot help, except where else to go. What it has been asked already is
    /// about to be answered as well, and each definite answer is one attempt that need not be called unknown.
    fn begin_to_leave(&mut self) {
        let Some(connected) = &mut self.connected else {
            return;
        };
        if connected.leaving.is_none() {
            connected.leaving = Some(Instant::now() + LEAVING_MAX);
            connected.ask_members();
            let target = connected.target.clone();
            self.book.put_last(&target);
        }
    }

    fn leave(&mut self) {
        if let Some(connected) = self.connected.take() {
            self.requests.on_link_lost();
            tokio::spawn(connected.link.close());
        }
    }

    fn lose_link(&mut self, found: Found) {
        if let Some(connected) = self.connected.take() {
            self.book.note(&connected.target, found);
            self.book.put_last(&connected.target);
            self.requests.on_link_lost();
        }
    }

    fn leave_if_time(&mut self) {
        let Some(connected) = &mut self.connected else {
            return;
        };
        let in_flight = self.requests.in_flight();
        if let Some(until) = connected.leaving {
            if in_flight == 0 && !connected.members_awaited || until <= Instant::now() {
                self.leave();
            }
            return;
        }
        if in_flight == 0 {
            return;
        }
        let now = Instant::now();
        if now >= connected.patience && now >= connected.heard + SILENCE_MAX {
            self.lose_link(Found::TimedOut);
        } else if !connected.probed && now >= connected.heard + PROBE_AFTER {
            connected.probed = true;
            let target = connected.target.clone();
            let refused = self.dial.refused(target.clone());
            self.tasks.spawn(async move {
                // One answer of the port is all that is waited for.
                match tokio::time::timeout(DIAL_MAX, refused).await {
                    Ok(()) => Report::PortClosed(target),
                    Err(_) => Report::PortSilent,
                }
            });
        }
    }

    fn dial_if_needed(&mut self) {
        let now = Instant::now();
        let wanted = !self.requests.is_empty() || !self.greetings.is_empty();
        if !wanted {
            self.round.stop();
        }
        if !wanted || self.connected.is_some() {
            return;
        }
        if self.round.is_over() && now >= self.not_before {
            self.round.begin(self.book.targets(), now);
            // If all of them fail, the next round begins after this.
            self.back_off();
        }
        while let Some(target) = self.round.take_due(now) {
            self.start_dial(target);
        }
    }

    fn start_dial(&mut self, target: Target) {
        let dial = self.dial.clone();
        let cluster = self.manners.cluster;
        self.tasks.spawn(async move {
            let refused = dial.refused(target.clone());
            let result = tokio::select! {
                result = tokio::time::timeout(DIAL_MAX, reach(&*dial, target.clone(), cluster)) => {
                    result.unwrap_or(Err(Found::TimedOut))
                }
                () = refused => Err(Found::ConnectionRefused),
            };
            Report::Dialled(target, Box::new(result))
        });
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Dialled(target, result) => match *result {
                Ok((link, greeting)) => self.take_link(target, link, greeting),
                Err(found) => self.take_failure(&target, found),
            },
            Report::PortClosed(target) => {
                let ours = self.connected.as_ref().is_some_and(|c| c.target == target);
                if ours {
                    self.lose_link(Found::ConnectionRefused);
                }
            }
            Report::PortSilent => {}
        }
    }

    fn take_failure(&mut self, target: &Target, found: Found) {
        self.round.failed(Instant::now());
        self.book.note(target, found);
        if self.connected.is_some() {
            // The leader cannot be reached from here: the node that we have forwards.
            self.not_before = Instant::now();
        } else if self.round.is_over() && self.book.is_hopeless() {
            self.end_all();
        }
    }

    fn take_link(&mut self, target: Target, link: Link, greeting: Greeting) {
        self.book.greeted(&target, &greeting);
        let leads = greeting.leader == Some(greeting.node_id);
        let better = self.manners.prefer_leader && leads && !self.is_at_leader();
        if self.connected.is_some() && !(better && self.requests.in_flight() == 0) {
            tokio::spawn(link.close());
            return;
        }
        // Whoever else was being dialled is not needed any more.
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        self.round = Round::default();
        let now = Instant::now();
        self.not_before = now;
        for (_, reply) in self.greetings.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Ok(greeting.clone()));
        }
        if self.manners.prefer_leader && !leads {
            self.hop_to_leader(&greeting);
        }
        self.connected = Some(Connected {
            link,
            target,
            greeting,
            heard: now,
            patience: now,
            probed: false,
            leaving: None,
            members_asked: now,
            members_awaited: false,
        });
    }

    fn is_at_leader(&self) -> bool {
        self.connected
            .as_ref()
            .is_some_and(|c| c.greeting.leader == Some(c.greeting.node_id))
    }

    /// Many writes are worth a second connection: what is sent to the leader needs no forwarding. Sending waits for it a
    /// little; if the leader cannot be reached from here, the first node forwards.
    fn hop_to_leader(&mut self, greeting: &Greeting) {
        let leader = greeting
            .members
            .iter()
            .find(|member| Some(member.id) == greeting.leader);
        if let Some(target) = leader.and_then(|leader| self.book.target_of(leader)) {
            self.round.add();
            self.start_dial(target);
            self.not_before = Instant::now() + STAGGER;
        }
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + IDLE_WAKE;
        if let Some(deadline) = self.requests.next_deadline() {
            wake = wake.min(self.began + deadline);
        }
        if let Some((deadline, _)) = self.greetings.iter().min_by_key(|(deadline, _)| *deadline) {
            wake = wake.min(*deadline);
        }
        if now < self.not_before && !self.requests.is_empty() {
            wake = wake.min(self.not_before);
        }
        if self.connected.is_none()
            && let Some(due) = self.round.next_wake()
        {
            wake = wake.min(due);
        }
        if let Some(connected) = &self.connected
            && let Some(until) = connected.leaving
        {
            wake = wake.min(until);
        } else if let Some(connected) = &self.connected
            && self.requests.in_flight() > 0
        {
            let silent = connected.patience.max(connected.heard + SILENCE_MAX);
            wake = wake.min(silent);
            if !connected.probed {
                wake = wake.min(connected.heard + PROBE_AFTER);
            }
        }
        wake
    }

    fn end_all(&mut self) {
        for (ticket, failed) in self.requests.end() {
            self.reply(ticket, Err(failed));
        }
        let findings = self.book.findings();
        for (_, reply) in self.greetings.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Err(findings.clone()));
        }
    }

    async fn close(mut self, done: oneshot::Sender<()>) {
        self.end_all();
        if let Some(connected) = self.connected.take() {
            connected.link.close().await;
        }
        // Whoever asked may have stopped waiting.
        let _ = done.send(());
    }
}

/// The next frames of the link; waits for ever without one.
async fn frames_of(connected: &mut Option<Connected>) -> Result<Vec<bytes::Bytes>, String> {
    match connected {
        Some(connected) => connected.link.recv().await,
        None => std::future::pending().await,
    }
}
