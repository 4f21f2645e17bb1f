//! A log directory as JSON lines, for people and scripts: what `waldump` prints, and programs that offer the same.
//!
//! The first line is about the log, `"what":"log"`. Then come `segment`, `faulty` and `report`, or `entry`, each with the fields
//! that [`Inspection`] and [`StoredEntry`] have. A payload is printed as text if it is UTF-8, else in
//! hexadecimal digits.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

use crate::error::{Corruption, OpenError, ReadError};
use crate::fs::OsFs;
use crate::reader::StoredEntry;
use crate::wal::{Depth, FaultyEntry, Inspection, SegmentInfo, Tail, inspect};

/// Entries are read in pieces of this size.
const READ_BYTES: u64 = 1 << 20;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The log and its segments.
    Inspect,
    /// The same, with every record read and verified.
    Verify,
    /// The entries from one index to another, both included, as far as they are there.
    Dump {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
}

/// Why printing ended early, or with bad news.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrintError {
    /// The directory cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Entries cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something is damaged; it was printed.
    #[error("{entries} damaged entries, {copies} damaged copies and indexes")]
    Damaged {
        /// Damaged entries.
        entries: usize,
        /// Damaged second copies, indexes and repair files.
        copies: usize,
    },
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl PrintError {
    /// As in `sysexits.h`: 65 for damaged data, 66 for a newer format, 74 for a failing file system, 76 if there is no log.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            PrintError::Open(OpenError::Io(_))
            | PrintError::Read(ReadError::Io(_))
            | PrintError::Output(_) => 74,
            PrintError::Open(OpenError::NewerFormat { .. }) => 66,
            PrintError::Open(OpenError::NotCreated { .. }) => 76,
            PrintError::Open(_) | PrintError::Read(_) | PrintError::Damaged { .. } => 65,
        }
    }
}

/// Prints what a log directory holds, without using it. Whoever reads the output may stop when he has seen enough: a pipe that
/// is closed is no error.
///
/// # Errors
/// [`PrintError`]; after [`PrintError::Damaged`] everything was printed.
pub fn print(dir: &Path, what: What, out: &mut impl Write) -> Result<(), PrintError> {
    match print_all(dir, what, out) {
        Err(PrintError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn print_all(dir: &Path, what: What, out: &mut impl Write) -> Result<(), PrintError> {
    let depth = match what {
        What::Inspect | What::Dump { .. } => Depth::Headers,
        What::Verify => Depth::Records,
    };
    let found = inspect(&OsFs, dir, depth)?;
    if let What::Dump { from, to } = what {
        print_entries(&found, from, to, out)?;
        out.flush()?;
        return Ok(());
    }
    writeln!(out, "{}", log_line(&found))?;
    for segment in &found.segments {
        writeln!(out, "{}", segment_line(segment))?;
    }
    for faulty in &found.faulty {
        writeln!(out, "{}", faulty_line(faulty))?;
    }
    for report in &found.reports {
        let line = Line::new("report").text("message", &report.to_string());
        writeln!(out, "{}", line.end())?;
    }
    out.flush()?;
    match (found.faulty.len(), found.reports.len()) {
        (0, 0) => Ok(()),
        (entries, copies) => Err(PrintError::Damaged { entries, copies }),
    }
}

fn print_entries(
    found: &Inspection<OsFs>,
    from: u64,
    to: u64,
    out: &mut impl Write,
) -> Result<(), PrintError> {
    let reader = found.reader();
    let mut next = from.max(reader.first_index());
    let end = to.min(reader.last_index()).saturating_add(1);
    let mut damaged = 0;
    while next < end {
        match reader.entries(next..end, READ_BYTES) {
            Ok(entries) => {
                for entry in &entries {
                    writeln!(out, "{}", entry_line(entry))?;
                }
                next += entries.len() as u64;
            }
            Err(ReadError::Corrupt(corruption)) => {
                writeln!(out, "{}", damage_line(next, None, &corruption))?;
                damaged += 1;
                next += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    match damaged {
        0 => Ok(()),
        entries => {
            out.flush()?;
            Err(PrintError::Damaged { entries, copies: 0 })
        }
    }
}

fn log_line(found: &Inspection<OsFs>) -> String {
    let line = Line::new("log")
        .text("cluster", &format!("{:08x}", found.binding.cluster))
        .number("node", found.binding.node)
        .number("term", found.term)
        .optional("vote", found.vote)
        .number("generation", found.generation)
        .number("first_index", found.floor.0 + 1)
        .number("last_index", found.last_index)
        .number("last_term", found.last_term)
        .number("commit", found.commit)
        .number("floor_index", found.floor.0)
        .number("floor_term", found.floor.1)
        .number("watermark_index", found.watermark.0)
        .number("watermark_term", found.watermark.1)
        .flag("closed", found.closed)
        .number("spares", found.spares as u64)
        .number("repaired", found.repaired.len() as u64);
    let line = match &found.tail {
        Tail::Clean => line.number("torn_bytes", 0),
        Tail::TornDropped {
            segment,
            offset,
            bytes,
        } => line
            .number("torn_bytes", *bytes)
            .text("torn_file", &segment.display().to_string())
            .number("torn_offset", *offset),
    };
    line.end()
}

fn segment_line(segment: &SegmentInfo) -> String {
    Line::new("segment")
        .text("file", &segment.file.display().to_string())
        .number("number", segment.number)
        .number("base", segment.base)
        .number("count", segment.count)
        .number("bytes", segment.bytes)
        .number("end", segment.end)
        .flag("sealed", segment.sealed)
        .end()
}

fn faulty_line(faulty: &FaultyEntry) -> String {
    damage_line(faulty.index, faulty.kind, &faulty.corruption)
}

fn damage_line(index: u64, kind: Option<u8>, corruption: &Corruption) -> String {
    Line::new("faulty")
        .number("index", index)
        .optional("term", corruption.term)
        .optional("kind", kind.map(u64::from))
        .text("file", &corruption.file.display().to_string())
        .number("offset", corruption.offset)
        .text("check", &format!("{:?}", corruption.check))
        .text("expected", &format!("{:#x}", corruption.expected))
        .text("found", &format!("{:#x}", corruption.found))
        .end()
}

fn entry_line(entry: &StoredEntry) -> String {
    let line = Line::new("entry")
        .number("index", entry.index)
        .number("term", entry.term)
        .number("kind", u64::from(entry.kind))
        .number("bytes", entry.payload.len() as u64)
        .text("crc", &format!("{:08x}", entry.payload_crc));
    let line = match std::str::from_utf8(&entry.payload) {
        Ok(text) => line.text("text", text),
        Err(_) => {
            let digits = entry
                .payload
                .iter()
                .fold(String::new(), |mut digits, byte| {
                    let _ = write!(digits, "{byte:02x}"); // A string takes everything.
                    digits
                });
            line.text("hex", &digits)
        }
    };
    line.end()
}

/// A flat JSON object.
struct Line(String);

impl Line {
    fn new(what: &str) -> Line {
        Line(String::from("{")).text("what", what)
    }

    fn name(mut self, name: &str) -> Line {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
        self
    }

    fn number(self, name: &str, value: u64) -> Line {
        let mut line = self.name(name);
        line.0.push_str(&value.to_string());
        line
    }

    fn optional(self, name: &str, value: Option<u64>) -> Line {
        match value {
            Some(value) => self.number(name, value),
            None => {
                let mut line = self.name(name);
                line.0.push_str("null");
                line
            }
        }
    }

    fn flag(self, name: &str, value: bool) -> Line {
        let mut line = self.name(name);
        line.0.push_str(if value { "true" } else { "false" });
        line
    }

    fn text(self, name: &str, value: &str) -> Line {
        let mut line = self.name(name);
        line.0.push('"');
        for letter in value.chars() {
            match letter {
                '"' => line.0.push_str("\\\""),
                '\\' => line.0.push_str("\\\\"),
                '\n' => line.0.push_str("\\n"),
                '\t' => line.0.push_str("\\t"),
                '\r' => line.0.push_str("\\r"),
                control if control < ' ' => {
                    let _ = write!(line.0, "\\u{:04x}", control as u32); // As above.
                }
                other => line.0.push(other),
            }
        }
        line.0.push('"');
        line
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_json_wants_it() {
        let line = Line::new("x")
            .text("t", "a\"b\\c\nd\te\u{1}f")
            .optional("o", None);
        let expected = r#"{"what":"x","t":"a\"b\\c\nd\te\u0001f","o":null}"#;
        assert_eq!(line.end(), expected);
    }

    #[test]
    fn payloads_that_are_no_text_are_printed_in_digits() {
        let entry = StoredEntry {
            index: 7,
            term: 2,
            kind: 1,
            payload: bytes::Bytes::from_static(b"\xff\x00z"),
            payload_crc: 0xab,
        };
        let line = r#"{"what":"entry","index":7,"term":2,"kind":1,"bytes":3,"crc":"000000ab","hex":"ff007a"}"#;
        assert_eq!(entry_line(&entry), line);
    }
}
