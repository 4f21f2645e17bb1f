//! Linearizable reads without a log entry (thesis 6.4).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::{LogIndex, NodeId, ReadId};

/// Who waits for a read index at the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reader {
    /// A read of this node's driver.
    Local(ReadId),
    /// A request of a follower.
    Peer(NodeId, ReadId),
}

/// Reads that share one round.
#[derive(Debug)]
struct Batch {
    round: u64,
    index: LogIndex,
    readers: Vec<Reader>,
}

/// The rounds in which a leader makes sure that it still leads.
///
/// Each round has a number that is never used again in this term, heartbeats carry the newest one,
/// and an answer echoes it. So an answer to an older heartbeat can only confirm what was committed
/// before that heartbeat left, however late it comes and however often a request is repeated.
/// Numbers start at 1; 0 confirms nothing.
#[derive(Debug, Default)]
pub(crate) struct ReadRounds {
    round: u64,
    waiting: Vec<Reader>,
    begun: VecDeque<Batch>,
}

/// Readers that are answered, and the index they may read at.
pub(crate) struct Answered {
    pub(crate) index: LogIndex,
    pub(crate) readers: Vec<Reader>,
}

impl ReadRounds {
    /// The newest round.
    pub(crate) fn newest(&self) -> u64 {
        self.round
    }

    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
            + self
                .begun
                .iter()
                .map(|batch| batch.readers.len())
                .sum::<usize>()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn add(&mut self, reader: Reader) {
        self.waiting.push(reader);
    }

    /// Begins a round for all readers that wait, with the commit index of now. The caller makes
    /// sure that an entry of its own term is committed: only then its commit index is that of the
    /// cluster.
    pub(crate) fn begin(&mut self, committed: LogIndex) {
        assert!(self.has_waiting(), "a round without readers");
        self.round += 1;
        let readers = core::mem::take(&mut self.waiting);
        self.begun.push_back(Batch {
            round: self.round,
            index: committed,
            readers,
        });
    }

    /// Begins a round in which nobody waits, for the sake of its answers.
    pub(crate) fn begin_without_readers(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// The readers that wait for a round to begin.
    pub(crate) fn take_waiting(&mut self) -> Vec<Reader> {
        core::mem::take(&mut self.waiting)
    }

    /// A quorum answered `round`: all rounds up to it are confirmed.
    pub(crate) fn confirmed(&mut self, round: u64) -> Vec<Answered> {
        let confirmed = self
            .begun
            .iter()
            .take_while(|batch| batch.round <= round)
            .count();
        let batches = self.begun.drain(..confirmed);
        batches
            .map(|batch| Answered {
                index: batch.index,
                readers: batch.readers,
            })
            .collect()
    }

    /// Everybody who waits, because the leadership ended.
    pub(crate) fn into_readers(self) -> impl Iterator<Item = Reader> {
        let begun = self.begun.into_iter().flat_map(|batch| batch.readers);
        begun.chain(self.waiting)
    }
}

/// One request to the leader, for all reads that waited when it was sent.
#[derive(Debug)]
struct Forward {
    id: ReadId,
    reads: Vec<ReadId>,
    age_ticks: u32,
}

/// Reads of a follower that wait for the leader's answer.
#[derive(Debug, Default)]
pub(crate) struct ForwardedReads {
    waiting: Vec<ReadId>,
    sent: VecDeque<Forward>,
}

impl ForwardedReads {
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
            + self
                .sent
                .iter()
                .map(|forward| forward.reads.len())
                .sum::<usize>()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn add(&mut self, id: ReadId) {
        self.waiting.push(id);
    }

    /// Sends off all reads that wait, as the request `id`.
    pub(crate) fn send(&mut self, id: ReadId) {
        let reads = core::mem::take(&mut self.waiting);
        self.sent.push_back(Forward {
            id,
            reads,
            age_ticks: 0,
        });
    }

    /// The reads of the request `id`; none if it is not waited for (any more).
    pub(crate) fn answered(&mut self, id: ReadId) -> Option<Vec<ReadId>> {
        let position = self.sent.iter().position(|forward| forward.id == id)?;
        self.sent.remove(position).map(|forward| forward.reads)
    }

    /// Requests that waited for `age_ticks_max`: they or their answers got lost.
    pub(crate) fn tick(&mut self, age_ticks_max: u32) -> Vec<ReadId> {
        for forward in &mut self.sent {
            forward.age_ticks += 1;
        }
        let expired = self
            .sent
            .iter()
            .take_while(|forward| forward.age_ticks >= age_ticks_max)
            .count();
        self.sent
            .drain(..expired)
            .flat_map(|forward| forward.reads)
            .collect()
    }

    pub(crate) fn into_reads(self) -> impl Iterator<Item = ReadId> {
        let sent = self.sent.into_iter().flat_map(|forward| forward.reads);
        sent.chain(self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 38: an answer to an older round does not confirm a younger read.
    #[test]
    fn older_round_does_not_confirm_younger_reads() {
        let mut rounds = ReadRounds::default();
        rounds.add(Reader::Local(ReadId(1)));
        rounds.begin(LogIndex(4));
        rounds.add(Reader::Local(ReadId(2)));
        rounds.begin(LogIndex(7));
        let answered = rounds.confirmed(1);
        assert_eq!(answered.len(), 1);
        assert_eq!(answered[0].index, LogIndex(4));
        assert_eq!(rounds.pending(), 1);
        assert!(rounds.confirmed(1).is_empty());
        assert_eq!(rounds.confirmed(2)[0].readers, [Reader::Local(ReadId(2))]);
    }

    #[test]
    fn forwarded_reads_are_answered_once_and_expire() {
        let mut reads = ForwardedReads::default();
        reads.add(ReadId(1));
        reads.add(ReadId(2));
        reads.send(ReadId(100));
        assert_eq!(reads.answered(ReadId(99)), None);
        assert_eq!(
            reads.answered(ReadId(100)),
            Some(Vec::from([ReadId(1), ReadId(2)]))
        );
        assert_eq!(reads.answered(ReadId(100)), None);
        reads.add(ReadId(3));
        reads.send(ReadId(101));
        assert!(reads.tick(2).is_empty());
        assert_eq!(reads.tick(2), [ReadId(3)]);
    }
}
