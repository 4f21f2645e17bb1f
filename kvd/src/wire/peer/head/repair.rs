//! The heads of messages about damaged logs.

use raft_core::{
    Configuration, Entry, InstallSnapshot, LogIndex, Message, RepairAnswer, RepairAsk, RepairId,
    RepairOutcome, Repairing, SnapshotAsk, SnapshotMeta, Term,
};
use serde::{Deserialize, Serialize};

use super::{Id, count, id};
use crate::wire::peer::WireError;

/// A message of a node that repairs its log, or to one, without the entries in it.
#[derive(Serialize, Deserialize)]
pub(super) enum RepairHead<'a> {
    Ask(Ask),
    Have {
        ask: Ask,
        entries: u32,
    },
    Compacted {
        ask: Ask,
        snapshot: Id,
    },
    Never {
        ask: Ask,
        held: Option<u64>,
    },
    Maybe {
        ask: Ask,
    },
    Repairing {
        count: u64,
        next: u64,
    },
    SnapshotAsk {
        covering: u64,
    },
    Snapshot {
        #[serde(borrow)]
        meta: Meta<'a>,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Ask {
    id: u64,
    first: u64,
    last: u64,
    anchor: Id,
}

/// What a snapshot stands for.
#[derive(Serialize, Deserialize)]
pub(super) struct Meta<'a> {
    last: Id,
    configuration: &'a [u8],
    configuration_index: u64,
}

impl<'a> RepairHead<'a> {
    pub(super) fn of_answer(answer: &RepairAnswer) -> (RepairHead<'a>, &[Entry]) {
        let ask = Ask::of(&answer.ask);
        let head = match &answer.outcome {
            RepairOutcome::Have { entries } => {
                let head = RepairHead::Have {
                    ask,
                    entries: count(entries),
                };
                return (head, entries);
            }
            RepairOutcome::Compacted { snapshot } => RepairHead::Compacted {
                ask,
                snapshot: id(*snapshot),
            },
            RepairOutcome::Never { held } => RepairHead::Never {
                ask,
                held: held.map(|term| term.0),
            },
            RepairOutcome::Maybe => RepairHead::Maybe { ask },
        };
        (head, &[])
    }

    /// How many records follow.
    pub(super) fn entry_count(&self) -> u32 {
        match self {
            RepairHead::Have { entries, .. } => *entries,
            RepairHead::Ask(_)
            | RepairHead::Compacted { .. }
            | RepairHead::Never { .. }
            | RepairHead::Maybe { .. }
            | RepairHead::Repairing { .. }
            | RepairHead::SnapshotAsk { .. }
            | RepairHead::Snapshot { .. } => 0,
        }
    }

    pub(super) fn into_message(self, entries: Vec<Entry>) -> Result<Message, WireError> {
        let answer = |ask: Ask, outcome| {
            let ask = ask.into();
            Message::RepairAnswer(RepairAnswer { ask, outcome })
        };
        Ok(match self {
            RepairHead::Ask(ask) => Message::RepairAsk(ask.into()),
            RepairHead::Have { ask, entries: _ } => answer(ask, RepairOutcome::Have { entries }),
            RepairHead::Compacted { ask, snapshot } => {
                let snapshot = snapshot.into();
                answer(ask, RepairOutcome::Compacted { snapshot })
            }
            RepairHead::Never { ask, held } => {
                let held = held.map(Term);
                answer(ask, RepairOutcome::Never { held })
            }
            RepairHead::Maybe { ask } => answer(ask, RepairOutcome::Maybe),
            RepairHead::Repairing { count, next } => {
                let next = LogIndex(next);
                Message::Repairing(Repairing { count, next })
            }
            RepairHead::SnapshotAsk { covering } => {
                let covering = LogIndex(covering);
                Message::SnapshotAsk(SnapshotAsk { covering })
            }
            RepairHead::Snapshot { meta } => {
                let meta = Box::new(meta.decode()?);
                Message::RepairSnapshot(InstallSnapshot { meta })
            }
        })
    }
}

impl Ask {
    pub(super) fn of(ask: &RepairAsk) -> Ask {
        Ask {
            id: ask.id.0,
            first: ask.first.0,
            last: ask.last.0,
            anchor: id(ask.anchor),
        }
    }
}

impl From<Ask> for RepairAsk {
    fn from(ask: Ask) -> RepairAsk {
        RepairAsk {
            id: RepairId(ask.id),
            first: LogIndex(ask.first),
            last: LogIndex(ask.last),
            anchor: ask.anchor.into(),
        }
    }
}

impl<'a> Meta<'a> {
    /// `configuration` is the one of `meta`, encoded.
    pub(super) fn of(meta: &SnapshotMeta, configuration: &'a [u8]) -> Meta<'a> {
        Meta {
            last: id(meta.id),
            configuration,
            configuration_index: meta.configuration_index.0,
        }
    }

    pub(super) fn decode(self) -> Result<SnapshotMeta, WireError> {
        Ok(SnapshotMeta {
            id: self.last.into(),
            configuration: Configuration::decode(self.configuration)?,
            configuration_index: LogIndex(self.configuration_index),
        })
    }
}
