//! What a node is apart from its role.

use alloc::boxed::Box;

use crate::disk_health::DiskHealth;
use crate::log::RaftLog;
use crate::membership::Membership;
use crate::outbox::{Durable, Outbox};
use crate::persistence::Persistence;
use crate::repair::Repair;
use crate::rng::Rng;
use crate::{
    Config, Configuration, Envelope, Event, HardState, LogIndex, Message, NodeId, ReadError,
    ReadId, Storage, Term,
};

/// State and output that all roles share. Roles change it, but only the transitions in `role.rs`
/// change the role.
///
/// Invariant: the term never falls, and within a term the vote is given once.
#[derive(Debug)]
pub(crate) struct Core<S> {
    pub(crate) config: Config,
    pub(crate) hard_state: HardState,
    pub(crate) log: RaftLog<S>,
    pub(crate) membership: Membership,
    pub(crate) persistence: Persistence,
    pub(crate) timer: ElectionTimer,
    pub(crate) outbox: Outbox,
    pub(crate) repair: Repair,
    pub(crate) told: Told,
    pub(crate) rng: Rng,
    pub(crate) next_forward: ReadId,
    pub(crate) disk: DiskHealth,
    /// Ticks since a leader was last heard, or since the start; 0 on a leader. Unlike the election
    /// timer it is not set back by elections.
    pub(crate) leaderless_ticks: u32,
}

/// Up to where the growth of the log and of what is committed was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) last: LogIndex,
    pub(crate) committed: LogIndex,
}

/// Ticks since a leader was heard, an election began, or a leader checked its quorum.
#[derive(Debug)]
pub(crate) struct ElectionTimer {
    pub(crate) elapsed: u32,
    /// Drawn anew at each change of role, so that two candidates do not split the votes for ever.
    pub(crate) timeout: u32,
}

impl ElectionTimer {
    pub(crate) fn draw(config: &Config, rng: &mut Rng) -> ElectionTimer {
        let timeout = config.election_timeout_ticks + rng.below(config.election_timeout_ticks);
        ElectionTimer {
            elapsed: 0,
            timeout,
        }
    }
}

impl<S: Storage> Core<S> {
    pub(crate) fn id(&self) -> NodeId {
        self.config.id
    }

    pub(crate) fn term(&self) -> Term {
        self.hard_state.term
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.send_in(self.term(), to, message);
    }

    /// Sends with a term that would be, see [`Envelope`].
    #[inline]
    pub(crate) fn send_in(&mut self, term: Term, to: NodeId, message: Message) {
        assert_ne!(to, self.id(), "{} to itself", message.name());
        let from = self.id();
        self.outbox.send(Envelope {
            from,
            to,
            term,
            message,
        });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outbox.events.push(event);
    }

    /// Tells in one event each what a batch of calls has added.
    pub(crate) fn tell_positions(&mut self) {
        let (last, index) = (self.log.last_index(), self.log.committed());
        if last > self.told.last {
            let first = self.told.last.next();
            self.event(Event::Appended { first, last });
        }
        if index > self.told.committed {
            self.event(Event::Committed { index });
        }
        self.told.last = last;
        self.told.committed = index;
    }

    pub(crate) fn advance_term(&mut self, term: Term, vote: Option<NodeId>) {
        assert!(term > self.term(), "term {} after {}", term, self.term());
        self.hard_state = HardState { term, vote };
        self.outbox.forget_messages();
    }

    /// Whether this node may stand for election.
    pub(crate) fn is_promotable(&self) -> bool {
        self.is_needed() && !self.log.is_installing() && !self.log.is_faulty()
    }

    /// Whether an election may need this node: it votes, or the change that leaves it out is not known to be committed
    /// (thesis 4.2.2).
    ///
    /// n2 leads n1 and n2, appends a configuration of n1 alone, and is cut off before n1 gets it. n1 cannot win without n2's
    /// vote, and n2 refuses it, since n1's log ends earlier. Only n2 can win, with the vote of n1 and without its own.
    fn is_needed(&self) -> bool {
        let votes_at = |index| {
            let configuration = self.membership.at(index);
            configuration.is_some_and(|(_, members)| members.is_voter(self.id()))
        };
        self.membership.current().is_voter(self.id()) || votes_at(self.log.committed())
    }

    /// Whether this node stands when its election timeout is over.
    pub(crate) fn stands_by_itself(&self) -> bool {
        self.is_promotable() && !self.disk.is_silent()
    }

    /// For a follower or candidate.
    pub(crate) fn reset_timer(&mut self) {
        self.draw_timer();
        let timeout_ticks = self.timer.timeout;
        self.event(Event::TimerStarted { timeout_ticks });
    }

    /// For a leader, which counts the ticks since it checked its quorum.
    pub(crate) fn draw_timer(&mut self) {
        self.timer = ElectionTimer::draw(&self.config, &mut self.rng);
    }

    /// The leader, if it was heard so lately that nobody should be elected in its place.
    pub(crate) fn live_leader(&self, leader: Option<NodeId>) -> Option<NodeId> {
        let is_live =
            self.config.check_quorum && self.timer.elapsed < self.config.election_timeout_ticks;
        leader.filter(|_| is_live)
    }

    pub(crate) fn check_read_limit(&self, pending: usize) -> Result<(), ReadError> {
        let limit = self.config.max_pending_reads;
        if pending < limit {
            Ok(())
        } else {
            Err(ReadError::Overloaded { pending, limit })
        }
    }

    /// Whether there is something for the disk that was not handed out yet.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.log.has_unsubmitted() || self.hard_state != self.persistence.handed_out()
    }

    /// What may be promised without waiting.
    pub(crate) fn durable(&self) -> Durable {
        Durable {
            hard_state: self.persistence.durable(),
            log: self.log.persisted(),
        }
    }

    /// Whether this node's vote for itself in this term is on disk.
    pub(crate) fn own_vote_is_durable(&self) -> bool {
        self.hard_state.vote == Some(self.id()) && self.vote_under_way().is_none()
    }

    /// Whom this node voted for, if that is still on its way to the disk.
    pub(crate) fn vote_under_way(&self) -> Option<NodeId> {
        let is_durable = self.persistence.durable() == self.hard_state;
        self.hard_state.vote.filter(|_| !is_durable)
    }

    pub(crate) fn truncate_log(&mut self, from: LogIndex) {
        self.told.last = self.told.last.min(from.prev());
        self.log.truncate(from);
        self.persistence.truncate(from);
        self.event(Event::Truncated { from });
        if self.membership.truncate(from) {
            self.announce_configuration();
        }
    }

    /// A configuration is in force from the moment it is appended.
    pub(crate) fn follow_configuration(&mut self, index: LogIndex, configuration: Configuration) {
        self.membership.append(index, configuration);
        self.announce_configuration();
    }

    pub(crate) fn announce_configuration(&mut self) {
        let index = self.membership.current_index();
        let configuration = Box::new(self.membership.current().clone());
        self.event(Event::ConfigurationChanged {
            index,
            configuration,
        });
    }
}
