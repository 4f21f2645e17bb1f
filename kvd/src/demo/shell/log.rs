//! A node's log: shown, and made shorter.

use std::time::Instant;

use bytes::Bytes;
use raft_core::{Configuration, EntryKind};
use raft_log::fs::OsFs;
use raft_log::{Depth, StoredEntry, inspect};

use super::{PAUSE, Shell, TIMEOUT};
use crate::kv::command::{Command, KeyRange, Op};
use crate::kv::envelope::Envelope;
use crate::wire::client::Request;

/// Bytes of entries that are shown at most.
const SHOWN_BYTES: u64 = 1 << 20;
/// Characters of a key or a value that are shown at most.
const SHOWN_CHARS: usize = 40;

impl Shell {
    /// Reads the files of the log, so that a stopped node shows its log as well.
    pub(super) fn show_log(&self, name: &str, count: u64) -> Result<(), String> {
        let dir = self.cluster.node(name)?.log_dir();
        let found = inspect(&OsFs, &dir, Depth::Headers).map_err(|error| error.to_string())?;
        let reader = found.reader();
        let (first, end) = (reader.first_index(), reader.last_index() + 1);
        println!(
            "{name}: term {}, entries {first}..{}, committed up to {}",
            found.term,
            end - 1,
            found.commit
        );
        let mut next = first.max(end.saturating_sub(count));
        while next < end {
            let entries = reader.entries(next..end, SHOWN_BYTES);
            let entries = entries.map_err(|error| error.to_string())?;
            for entry in &entries {
                println!("{:>6}  term {}  {}", entry.index, entry.term, what(entry));
            }
            next += entries.len() as u64;
        }
        Ok(())
    }

    /// As `kvctl log discard`.
    pub(super) fn discard(&self, name: &str) -> Result<(), String> {
        let before = self.status_of(name)?;
        self.ask(name, Request::DiscardLog)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let now = self.status_of(name)?;
            if now.snapshot_index >= before.last_applied {
                println!(
                    "{name} has a snapshot of entry {}; its log begins with {} and not with {}",
                    now.snapshot_index, now.first_index, before.first_index
                );
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{name} has no snapshot yet"));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// What an entry does, in words.
fn what(entry: &StoredEntry) -> String {
    match EntryKind::try_from(entry.kind) {
        Ok(EntryKind::Noop) => "a new leader".into(),
        Ok(EntryKind::Configuration) => match Configuration::decode(&entry.payload) {
            Ok(configuration) => format!("members: {configuration}"),
            Err(error) => error.to_string(),
        },
        Ok(EntryKind::Command) => command(&entry.payload),
        Err(error) => error.to_string(),
    }
}

fn command(payload: &[u8]) -> String {
    let decoded = Envelope::decode(payload).and_then(|envelope| Command::decode(envelope.command));
    match decoded {
        Ok(Command::Op(op)) => step(&op),
        Ok(Command::Txn(txn)) => {
            let steps: Vec<String> = txn.then.iter().map(step).collect();
            let conditions = txn.compare.len();
            format!("under {conditions} conditions: {}", steps.join(", "))
        }
        Ok(Command::CloseSession) => "close the session".into(),
        Ok(Command::KeepAlive) => "keep the session".into(),
        Ok(Command::Members(update)) => {
            let changes = update.edits.len();
            format!("table of members: {changes} changes")
        }
        Ok(Command::StateHash(agreed)) => {
            format!("a majority agrees on the state at {}", agreed.index)
        }
        Ok(Command::Custom(custom)) => format!("a command of {}", custom.machine),
        Err(error) => error.to_string(),
    }
}

fn step(op: &Op) -> String {
    match op {
        Op::Put { key, value, .. } => format!("set {} {}", shown(key), shown(value)),
        Op::Delete {
            range: KeyRange::Key(key),
            ..
        } => format!("del {}", shown(key)),
        Op::Delete { .. } => "del several keys".into(),
        Op::Range(_) => "get".into(),
        Op::Increment { key, by } => format!("incr {} {by}", shown(key)),
    }
}

fn shown(bytes: &Bytes) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.escape_debug().take(SHOWN_CHARS).collect();
    if text.escape_debug().nth(SHOWN_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::auth::{Principal, Role};
    use crate::kv::command::command_crc;
    use crate::kv::envelope::SessionRef;

    fn entry(kind: EntryKind, payload: Bytes) -> StoredEntry {
        StoredEntry {
            index: 1,
            term: 1,
            kind: kind as u8,
            payload,
            payload_crc: 0,
        }
    }

    #[test]
    fn entries_are_told_in_the_words_of_the_shell() {
        let put = Op::Put {
            key: "color".into(),
            value: "r\ned".into(),
            want_previous: false,
        };
        let bytes = Command::Op(put).encode();
        let payload = Envelope {
            principal: Principal::new(Role::Admin, "demo").borrowed(),
            session: SessionRef::None,
            sequence: 0,
            done_below: 0,
            log_time_ms: 0,
            command_crc: command_crc(&bytes),
            command: &bytes,
        }
        .encode();
        assert_eq!(
            what(&entry(EntryKind::Command, payload)),
            "set color r\\ned"
        );
        assert_eq!(what(&entry(EntryKind::Noop, Bytes::new())), "a new leader");
        let voters = [1, 2].map(raft_core::NodeId);
        let payload = Configuration::new(voters).encode().into();
        let told = what(&entry(EntryKind::Configuration, payload));
        assert!(told.starts_with("members: voters ("), "{told}");
        let broken = what(&entry(EntryKind::Command, Bytes::from_static(b"?")));
        assert!(!broken.is_empty());
    }

    #[test]
    fn long_values_are_cut() {
        let long = Bytes::from("x".repeat(100));
        assert_eq!(shown(&long).len(), SHOWN_CHARS + 3);
    }
}
