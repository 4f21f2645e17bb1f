//! The store: a state machine over the payloads of committed log entries.

use bytes::Bytes;

use super::auth::{self, Operation};
use super::codec::DecodeError;
use super::command::{
    Command, CommandResult, Custom, HashAt, OpResult, RangeQuery, RangeResult, command_crc,
};
use super::custom::{self, MachineStates};
use super::envelope::Envelope;
use super::hash::{Hasher, content_hash};
use super::limits::{self, LimitError, StoreLimits};
use super::members::{MemberRefusal, MemberTable};
use super::session::{SessionTable, Turn};
use super::transaction::{self, Data};
use crate::machine::{Context, Machines};
use crate::wire::client::Refusal;

#[cfg(test)]
mod tests;

/// Why a committed command had no effect. The same on every replica, and for good: this entry will never take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyRefusal {
    /// The entry was made by a newer program. This one cannot know what it does, and must stop before it applies
    /// anything else: see [`ApplyRefusal::must_stop`].
    #[error("the entry has format version {found}, this program knows {known}")]
    NewerVersion {
        /// The version in the entry.
        found: u8,
        /// The newest version that this program knows.
        known: u8,
    },
    /// Not a command.
    #[error("malformed command")]
    Malformed,
    /// The command does not match the checksum that its client made.
    #[error("the command does not match its checksum: expected {expected:08x}, found {found:08x}")]
    CommandCrc {
        /// What the client computed.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// The principal has no right to do this.
    #[error("not authorised")]
    NotAuthorised,
    /// Beyond a limit.
    #[error(transparent)]
    Limit(LimitError),
    /// The session is unknown, closed, or another principal's.
    #[error("session expired")]
    SessionExpired,
    /// An earlier sequence is missing.
    #[error("the next sequence of this session is {expected}")]
    SequenceGap {
        /// The sequence that would have been applied.
        expected: u64,
    },
    /// The sequence was used for another command.
    #[error("sequence {sequence} was used for another command")]
    SequenceReused {
        /// The sequence.
        sequence: u64,
    },
    /// The client has said that it has done with this sequence.
    #[error("the client has done with all sequences below {done_below}")]
    SequenceDone {
        /// The lowest sequence that can still be asked for.
        done_below: u64,
    },
    /// The session keeps as many results as it may; the client must raise `done_below`.
    #[error("the session keeps too many results, limit {limit}")]
    SessionFull {
        /// The limit: results, or their bytes.
        limit: u64,
    },
    /// All sessions together are as many or as large as they may be, and all were used just now.
    #[error("too many sessions in use, limit {limit}")]
    SessionsFull {
        /// The limit: sessions, or the bytes of their results.
        limit: u64,
    },
    /// The members stay as they are.
    #[error(transparent)]
    Members(#[from] MemberRefusal),
    /// This program does not have the state machine of the command, or one of a lower version. It must stop.
    #[error("the entry needs state machine {machine} of version {version}, this program has {}", .known.map_or("none".into(), |known| format!("version {known}")))]
    NoMachine {
        /// Its name.
        machine: String,
        /// The version that is needed.
        version: u32,
        /// The version that this program has.
        known: Option<u32>,
    },
    /// The command means nothing to the state machine that this program has, though it did to the leader's. It must stop.
    #[error("the entry is no command of state machine {machine} of version {version}: {why}")]
    UnreadableCommand {
        /// The machine.
        machine: String,
        /// The version of the command.
        version: u32,
        /// What is wrong with it.
        why: String,
    },
    /// The user's code panicked. Nobody knows what it would have done, so the node must stop.
    #[error("state machine {machine} panicked: {why}")]
    MachinePanicked {
        /// The machine.
        machine: String,
        /// What the panic said.
        why: String,
    },
}

impl ApplyRefusal {
    /// The node must stop now, and without a snapshot of this state: a newer program will apply the entry, this one did
    /// not, and going on would make two different histories out of one log.
    pub fn must_stop(&self) -> bool {
        matches!(
            self,
            ApplyRefusal::NewerVersion { .. }
                | ApplyRefusal::NoMachine { .. }
                | ApplyRefusal::UnreadableCommand { .. }
                | ApplyRefusal::MachinePanicked { .. }
        )
    }
}

impl From<ApplyRefusal> for Refusal {
    fn from(refusal: ApplyRefusal) -> Refusal {
        match refusal {
            ApplyRefusal::NewerVersion { .. } => Refusal::Unsupported,
            ApplyRefusal::Malformed
            | ApplyRefusal::UnreadableCommand { .. }
            | ApplyRefusal::MachinePanicked { .. } => Refusal::BadRequest {
                why: refusal.to_string(),
            },
            ApplyRefusal::NoMachine {
                machine,
                version,
                known,
            } => Refusal::NoMachine {
                machine,
                version,
                known,
            },
            ApplyRefusal::CommandCrc { .. } => Refusal::CommandCorrupt,
            ApplyRefusal::NotAuthorised => Refusal::NotAuthorised {
                why: "this principal may not write".into(),
            },
            ApplyRefusal::Limit(error) => error.into(),
            ApplyRefusal::SessionExpired => Refusal::SessionExpired,
            ApplyRefusal::SequenceGap { .. } => Refusal::SequenceGap,
            ApplyRefusal::SequenceReused { .. } => Refusal::SequenceReused,
            ApplyRefusal::SequenceDone { .. } => Refusal::SequenceDone,
            ApplyRefusal::SessionFull { limit } => Refusal::Overloaded {
                what: "results kept for the session".into(),
                limit,
            },
            ApplyRefusal::SessionsFull { limit } => Refusal::Overloaded {
                what: "sessions in use".into(),
                limit,
            },
            ApplyRefusal::Members(refusal) => Refusal::MembersRefused {
                why: refusal.to_string(),
            },
        }
    }
}

impl From<DecodeError> for ApplyRefusal {
    fn from(error: DecodeError) -> ApplyRefusal {
        match error {
            DecodeError::NewerVersion { found, known } => {
                ApplyRefusal::NewerVersion { found, known }
            }
            DecodeError::Empty | DecodeError::Malformed | DecodeError::TrailingBytes { .. } => {
                ApplyRefusal::Malformed
            }
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was applied, now or by an earlier entry with the same session and sequence.
    Done {
        /// Id of its session; 0 without one.
        session: u64,
        /// What it did.
        result: CommandResult,
    },
    /// It had no effect.
    Refused(ApplyRefusal),
}

/// Data, sessions and position: all that snapshots hold.
///
/// A clone is an immutable view and costs a few reference counts.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) limits: StoreLimits,
    pub(super) applied: u64,
    pub(super) revision: u64,
    pub(super) log_time_ms: u64,
    pub(super) hash: u64,
    pub(super) data: Data,
    pub(super) sessions: SessionTable,
    pub(super) members: MemberTable,
    /// What a majority found at an earlier position. No part of the state: a snapshot does not carry it.
    pub(super) agreed: Option<HashAt>,
    pub(super) machines: MachineStates,
    /// The code of the machines. Not part of the state: what this program happens to have.
    programs: Machines,
    /// Digest of what the machine wrote that the present entry ran; 0 if none did.
    machine_digest: u64,
}

impl Store {
    /// An empty store. All members of a cluster must use the same limits: [`StoreLimits::default`].
    pub fn new(limits: StoreLimits) -> Store {
        Store {
            limits,
            applied: 0,
            revision: 0,
            log_time_ms: 0,
            hash: 0,
            data: Data::new(),
            sessions: SessionTable::default(),
            members: MemberTable::default(),
            agreed: None,
            machines: MachineStates::new(),
            programs: Machines::default(),
            machine_digest: 0,
        }
    }

    /// The same with these state machines in place of those it had.
    #[must_use]
    pub fn with_machines(mut self, machines: Machines) -> Store {
        self.programs = machines;
        self
    }

    /// The state machines that this program has.
    pub fn programs(&self) -> &Machines {
        &self.programs
    }

    /// Applies the payload of the command entry at `index`.
    ///
    /// # Panics
    /// If `index` is not the one after [`Store::applied_index`].
    pub fn apply(&mut self, index: u64, payload: &Bytes) -> Applied {
        self.advance(index);
        self.machine_digest = 0;
        let applied = match self.apply_payload(index, payload) {
            Ok((session, result)) => Applied::Done { session, result },
            Err(refusal) => Applied::Refused(refusal),
        };
        self.note(index, payload, &applied);
        applied
    }

    /// Passes over an entry that holds no command: the empty one of a new leader, or a configuration.
    ///
    /// # Panics
    /// If `index` is not the one after [`Store::applied_index`].
    pub fn skip(&mut self, index: u64) {
        self.advance(index);
        let mut hasher = Hasher::new(self.hash);
        hasher.word(index);
        self.hash = hasher.finish();
    }

    fn advance(&mut self, index: u64) {
        assert_eq!(
            index,
            self.applied + 1,
            "entries are applied one after the other"
        );
        self.applied = index;
    }

    fn apply_payload(
        &mut self,
        index: u64,
        payload: &[u8],
    ) -> Result<(u64, CommandResult), ApplyRefusal> {
        let envelope = Envelope::decode(payload)?;
        // Leaders promise that log time does not fall; a mistake there must not make sessions younger.
        self.log_time_ms = self.log_time_ms.max(envelope.log_time_ms);
        self.sessions
            .expire(self.log_time_ms, &self.limits.sessions);

        if !auth::may(envelope.principal, Operation::Write) {
            return Err(ApplyRefusal::NotAuthorised);
        }
        let found = command_crc(envelope.command);
        if found != envelope.command_crc {
            return Err(ApplyRefusal::CommandCrc {
                expected: envelope.command_crc,
                found,
            });
        }
        let command = Command::decode(envelope.command)?;
        limits::check(&self.limits.command, &command).map_err(ApplyRefusal::Limit)?;
        check_sequence(&envelope, &command)?;
        if let Command::Members(update) = &command {
            if !auth::may(envelope.principal, Operation::EditMembers) {
                return Err(ApplyRefusal::NotAuthorised);
            }
            self.members.apply(index, update)?;
        }
        if let Command::StateHash(agreed) = &command {
            if !auth::may(envelope.principal, Operation::AgreeOnState) {
                return Err(ApplyRefusal::NotAuthorised);
            }
            self.agreed = Some(*agreed);
        }

        let now_ms = self.log_time_ms;
        let session = self
            .sessions
            .resolve(index, now_ms, &envelope, &self.limits.sessions)?;
        match session {
            None => Ok((0, self.run(command)?)),
            Some(id) if command == Command::KeepAlive => Ok((id, self.run(command)?)),
            Some(id) => Ok((id, self.apply_in_session(id, &envelope, command)?)),
        }
    }

    fn apply_in_session(
        &mut self,
        id: u64,
        envelope: &Envelope<'_>,
        command: Command,
    ) -> Result<CommandResult, ApplyRefusal> {
        let content = content_hash(envelope.command);
        match self.sessions.turn(
            id,
            self.log_time_ms,
            envelope.sequence,
            content,
            &self.limits.sessions,
        )? {
            Turn::Repeated(result) => Ok(result),
            Turn::Run => {
                let closes = command == Command::CloseSession;
                let result = self.run(command)?;
                self.sessions.keep(id, content, result.clone());
                if closes {
                    self.sessions.close(id);
                }
                Ok(result)
            }
        }
    }

    fn run(&mut self, command: Command) -> Result<CommandResult, ApplyRefusal> {
        let result = if let Command::Custom(custom) = &command {
            self.run_machine(custom)?
        } else {
            transaction::run(&mut self.data, command, self.revision, &self.limits)
        };
        self.revision = result.revision;
        Ok(result)
    }

    fn run_machine(&mut self, custom: &Custom) -> Result<CommandResult, ApplyRefusal> {
        let context = self.context(custom.version);
        let ran = custom::run(
            &self.programs,
            &mut self.machines,
            custom,
            context,
            self.revision,
            &self.limits,
        )?;
        self.machine_digest = ran.digest;
        Ok(ran.result)
    }

    fn context(&self, version: u32) -> Context {
        Context {
            index: self.applied,
            log_time_ms: self.log_time_ms,
            version,
        }
    }

    /// Takes the entry and its outcome into the hash. Both: equal logs that were understood differently show here.
    fn note(&mut self, index: u64, payload: &[u8], applied: &Applied) {
        let mut hasher = Hasher::new(self.hash);
        hasher.word(index);
        hasher.bytes(payload);
        hasher.word(self.revision);
        hasher.word(self.data.len() as u64);
        hasher.word(self.sessions.len() as u64);
        if !self.members.is_empty() {
            hasher.word(self.members.digest());
        }
        if self.machine_digest != 0 {
            hasher.word(self.machine_digest);
        }
        match applied {
            Applied::Refused(_) => hasher.word(u64::MAX),
            Applied::Done { session, result } => {
                hasher.word(*session);
                note_result(&mut hasher, result);
            }
        }
        self.hash = hasher.finish();
    }

    /// Answers a query from the data as it is now. The limits of a query are checked where it comes in.
    pub fn query(&self, query: &RangeQuery) -> RangeResult {
        transaction::query(&self.data, query, self.revision, &self.limits)
    }

    /// Whether this program can run a command of a state machine, before it is proposed.
    ///
    /// # Errors
    /// Definite: it does not have the machine, or the bytes are no command of it.
    pub fn check_custom(&self, command: &Custom) -> Result<(), Refusal> {
        custom::check(&self.programs, &self.machines, command)
    }

    /// Asks a state machine; `asked` is an encoded question in the place of a command.
    ///
    /// # Errors
    /// The program does not have the machine, the bytes are no question of it, or the reply is too large.
    pub fn ask(&self, asked: &Custom) -> Result<Bytes, Refusal> {
        let context = self.context(asked.version);
        custom::query(&self.programs, &self.machines, asked, context, &self.limits)
    }

    /// Number of keys of a state machine.
    pub fn machine_key_count(&self, machine: &str) -> usize {
        self.machines
            .get(machine)
            .map_or(0, |state| state.data.len())
    }

    /// Index of the last entry applied.
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// Number of write transactions that changed something.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The highest log time seen. A new leader continues from here.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// Hash over everything applied and what came of it; its kind is [`HASH_ALGORITHM`](super::HASH_ALGORITHM). Equal on
    /// equal replicas at the same index, and carried in snapshots.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The newest [`Command::StateHash`] that was applied to this store since it was made or read from a snapshot.
    pub fn agreed(&self) -> Option<HashAt> {
        self.agreed
    }

    /// Flips a bit in the value of a key, as bad memory does: for tests of what finds it. False if there is no such value.
    #[doc(hidden)]
    pub fn rot(&mut self, key: &[u8]) -> bool {
        let Some(record) = self.data.get_mut(key) else {
            return false;
        };
        let mut value = record.value.to_vec();
        let Some(last) = value.last_mut() else {
            return false;
        };
        *last ^= 1;
        record.value = value.into();
        true
    }

    /// Number of keys.
    pub fn key_count(&self) -> usize {
        self.data.len()
    }

    /// The members, if they ever changed.
    pub fn members(&self) -> &MemberTable {
        &self.members
    }

    /// The sessions.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }
}

/// A sequence belongs to a command in a session, and to nothing else. The highest number is left out: none could follow.
fn check_sequence(envelope: &Envelope<'_>, command: &Command) -> Result<(), ApplyRefusal> {
    use super::envelope::SessionRef;
    let sound = match (envelope.session, command) {
        (
            SessionRef::None,
            Command::Op(_)
            | Command::Txn(_)
            | Command::Members(_)
            | Command::StateHash(_)
            | Command::Custom(_),
        ) => envelope.sequence == 0 && envelope.done_below == 0,
        (SessionRef::None, Command::CloseSession | Command::KeepAlive) => false,
        (SessionRef::Id(_) | SessionRef::Named(_), Command::Members(_) | Command::StateHash(_)) => {
            false
        }
        (SessionRef::Id(_) | SessionRef::Named(_), Command::KeepAlive) => envelope.sequence == 0,
        (
            SessionRef::Id(_) | SessionRef::Named(_),
            Command::Op(_) | Command::Txn(_) | Command::CloseSession | Command::Custom(_),
        ) => (1..u64::MAX).contains(&envelope.sequence) && envelope.done_below <= envelope.sequence,
    };
    if sound {
        Ok(())
    } else {
        Err(ApplyRefusal::Malformed)
    }
}

/// Takes in what tells two outcomes apart.
fn note_result(hasher: &mut Hasher, result: &CommandResult) {
    hasher.word(result.revision);
    hasher.word(u64::from(result.succeeded));
    for step in &result.results {
        let (kind, a, b) = match step {
            OpResult::Put { version, previous } => (
                1,
                *version,
                previous.as_ref().map_or(0, |item| item.mod_revision),
            ),
            OpResult::Deleted { count, previous } => (2, *count, previous.len() as u64),
            OpResult::Range(range) => (3, range.count, u64::from(range.more)),
            OpResult::Incremented { value, version } => (4, value.cast_unsigned(), *version),
            OpResult::NotANumber => (5, 0, 0),
            OpResult::Overflow => (6, 0, 0),
            OpResult::AnswerTooLarge { limit_bytes } => (7, *limit_bytes, 0),
            OpResult::Answered { answer } => (8, content_hash(answer), answer.len() as u64),
            OpResult::Rejected { rejection } => {
                (9, content_hash(rejection), rejection.len() as u64)
            }
            OpResult::WriteRefused { why } => (10, content_hash(why.as_bytes()), why.len() as u64),
        };
        hasher.word(kind);
        hasher.word(a);
        hasher.word(b);
    }
}
