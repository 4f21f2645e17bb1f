//! Reads the records of a segment back, and tells a torn tail from corruption. Pure: bytes in.
//!
//! This is the only place where something written may be dropped, and the rule is short. A record that
//! does not check is *torn* only if it lies above the watermark and no valid live record behind it says
//! that a sync had returned beyond the bad one's start. Otherwise a completed sync covered it, and it is
//! *corrupt*: the log does not end there. Its entry is reported, and the walk goes on at the next record
//! that is valid, so that everything intact stays readable and only what is damaged has to be repaired.
//!
//! The story without the second half: n1 appends (7, t2), syncs, tells its leader, appends (8, t2) and
//! syncs; the power fails before the watermark reaches the disk. Then (7, t2) rots. By the watermark alone
//! n1 would find a bad record above it, cut both off and later deny what it had acknowledged. But (8, t2)
//! carries `synced_to` behind (7, t2): n1 has lost (7, t2), and knows it.

use std::ops::Range;

use crate::format::{
    self, ALIGN, BadRecord, Check, Cut, Fault, Mark, Names, PREFIX_BYTES, Prefix,
    SEGMENT_HEADER_BYTES, SegmentHeader, Stored,
};
use crate::record::{HEADER_BYTES, RECORD_VERSION};
use crate::terms::Terms;
use crate::twin::EIO;

/// What the control file and the other segments say about the segment to be scanned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) cluster: u32,
    pub(crate) generation: u64,
    pub(crate) cut: Cut,
    pub(crate) watermark: Mark,
    /// The next live segment; `None` for the last one. Everything before it was synced before that segment
    /// got its name.
    pub(crate) next: Option<Next>,
    /// Parts of the file that the medium does not give back, ascending; they read as zeros.
    pub(crate) unreadable: &'a [Range<u64>],
}

/// What the header of the following segment says of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Index with which it begins.
    pub(crate) base: u64,
    /// Term of the entry before that.
    pub(crate) previous_term: u64,
}

impl Next {
    pub(crate) fn of(header: &SegmentHeader) -> Next {
        Next {
            base: header.base,
            previous_term: header.previous_term,
        }
    }
}

/// The live records of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Offset of each, not descending; the first has the segment's base index. A damaged entry has the
    /// offset behind the intact one before it.
    pub(crate) offsets: Vec<u32>,
    /// Terms of those that are intact, and of the damaged ones whose term is known.
    pub(crate) terms: Terms,
    /// Damaged entries, ascending.
    pub(crate) faulty: Vec<Damage>,
    /// Offset behind the last one.
    pub(crate) end: u64,
    /// Term of the last one, or of the entry before the segment.
    pub(crate) last_term: u64,
    /// Bytes behind `end` that were dropped as torn; 0 if the log ended cleanly.
    pub(crate) torn_bytes: u64,
}

/// A damaged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) index: u64,
    pub(crate) term: Option<u64>,
    pub(crate) kind: Option<u8>,
    pub(crate) fault: Fault,
}

/// Why the walk over live records stopped.
enum Stop {
    /// A leftover of an earlier generation.
    Dead(BadRecord),
    Bad(BadRecord),
    /// A generation that the control file has not reached: the control file went back.
    Future(Fault),
}

/// Where the walk goes on behind damaged entries.
struct Gap {
    /// Index of the first entry that is not damaged.
    index: u64,
    offset: u64,
    /// Term of the last damaged entry, if something outside of the gap tells it.
    last_term: Option<u64>,
    /// None of them can have a higher term.
    term_most: u64,
}

/// Reads all live records of a segment; `bytes` is the whole file.
///
/// # Errors
/// What cannot be repaired entry by entry: control file and segment contradict each other, or it cannot be
/// told where the log ends.
pub(crate) fn scan(
    rules: &Rules<'_>,
    header: &SegmentHeader,
    bytes: &[u8],
) -> Result<Scan, Damage> {
    let mut walk = Walk::new(rules, header, bytes);
    loop {
        let bad = match walk.run() {
            None => return Ok(walk.found),
            Some(Stop::Future(fault)) => return Err(walk.damage(&BadRecord::unnamed(fault))),
            Some(Stop::Dead(bad) | Stop::Bad(bad)) => bad,
        };
        match walk.gap() {
            Some(gap) => walk.pass(&gap, &bad)?,
            None => {
                walk.check_end_is_readable()?;
                walk.found.torn_bytes = walk.torn_bytes();
                return Ok(walk.found);
            }
        }
    }
}

struct Walk<'a> {
    rules: &'a Rules<'a>,
    header: &'a SegmentHeader,
    bytes: &'a [u8],
    found: Scan,
    /// Generation of the last live record.
    generation: u64,
}

impl<'a> Walk<'a> {
    fn new(rules: &'a Rules<'a>, header: &'a SegmentHeader, bytes: &'a [u8]) -> Walk<'a> {
        let found = Scan {
            end: SEGMENT_HEADER_BYTES,
            last_term: header.previous_term,
            ..Scan::default()
        };
        Walk {
            rules,
            header,
            bytes,
            found,
            generation: 0,
        }
    }

    fn next_index(&self) -> u64 {
        self.header.base + self.found.offsets.len() as u64
    }

    /// Accepts records as long as they are live; `None` if the next segment begins here.
    fn run(&mut self) -> Option<Stop> {
        loop {
            if self
                .rules
                .next
                .is_some_and(|next| next.base == self.next_index())
            {
                return None;
            }
            let stored = match self.decode(self.found.end) {
                Ok(stored) => stored,
                Err(bad) => return Some(Stop::Bad(bad)),
            };
            if let Err(stop) = self.check_live(&stored) {
                return Some(stop);
            }
            self.accept(&stored);
        }
    }

    fn decode(&self, offset: u64) -> Result<Stored<'a>, BadRecord> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.bytes.get(offset..))
            .unwrap_or(&[]);
        format::decode_stored(self.rules.cluster, self.header.nonce, offset, bytes)
    }

    /// Whether a valid record is the next live one.
    fn check_live(&self, stored: &Stored<'_>) -> Result<(), Stop> {
        let generation = stored.prefix.generation;
        if generation > self.rules.generation {
            return Err(Stop::Future(Fault::new(
                Check::Generation,
                self.rules.generation,
                generation,
            )));
        }
        let lowest = self.lowest_live(self.found.end);
        if generation < lowest {
            let fault = Fault::new(Check::Generation, lowest, generation);
            return Err(Stop::Dead(BadRecord::unnamed(fault)));
        }
        let names = Some(Names::of(&stored.header));
        if stored.header.index != self.next_index() {
            let fault = Fault::new(Check::Index, self.next_index(), stored.header.index);
            return Err(Stop::Bad(BadRecord { fault, names }));
        }
        if stored.header.term < self.found.last_term {
            let fault = Fault::new(Check::Term, self.found.last_term, stored.header.term);
            return Err(Stop::Bad(BadRecord { fault, names }));
        }
        Ok(())
    }

    /// Lowest generation that is live at `offset`: that of the cut from the cut on, and never lower than
    /// the record before.
    fn lowest_live(&self, offset: u64) -> u64 {
        let place = Cut {
            segment: self.header.number,
            offset,
        };
        if place >= self.rules.cut {
            self.rules.generation
        } else {
            self.generation
        }
    }

    fn accept(&mut self, stored: &Stored<'_>) {
        let offset = u32::try_from(self.found.end).expect("decode checked that the offset fits");
        self.found.offsets.push(offset);
        self.found
            .terms
            .push(stored.header.index, stored.header.term);
        self.found.end = stored.end;
        self.found.last_term = stored.header.term;
        self.generation = stored.prefix.generation;
    }

    /// The rule: what is not live here may be the end of the log only if no completed sync covered it.
    /// Otherwise the entries up to the next intact one are damaged.
    fn gap(&self) -> Option<Gap> {
        let is_synced = self.rules.next.is_some() || self.is_below_watermark();
        let (resume, has_proof) = self.look_behind(is_synced);
        if !is_synced && !has_proof {
            return None;
        }
        // What lies above the watermark is looked at anew from there: it may be torn.
        let mark = self.rules.watermark;
        let resume =
            resume.filter(|resume| !self.is_below_watermark() || resume.offset < mark.offset);
        match (resume, self.rules.next) {
            (Some(gap), _) => Some(gap),
            (None, Some(next)) => Some(Gap {
                index: next.base,
                offset: self.found.end,
                last_term: Some(next.previous_term),
                term_most: next.previous_term,
            }),
            (None, None) => Some(Gap {
                index: mark.index + 1,
                offset: mark.offset.max(self.found.end),
                last_term: Some(mark.term),
                term_most: mark.term,
            }),
        }
    }

    fn is_below_watermark(&self) -> bool {
        let mark = &self.rules.watermark;
        self.rules.next.is_none()
            && ((mark.segment == self.header.number && self.found.end < mark.offset)
                || self.next_index() <= mark.index)
    }

    /// The first live record behind the place where the walk stopped, and whether any says that a sync had
    /// returned beyond that place. `is_synced`: that is known anyway.
    fn look_behind(&self, is_synced: bool) -> (Option<Gap>, bool) {
        let start = self.found.end;
        let mut first = None;
        let mut offset = start;
        while offset + ((PREFIX_BYTES + HEADER_BYTES) as u64) <= self.bytes.len() as u64 {
            if let Some(stored) = self.live_record_at(offset) {
                let has_proof = u64::from(stored.prefix.synced_to) > start;
                first.get_or_insert(Gap {
                    index: stored.header.index,
                    offset,
                    last_term: None,
                    term_most: stored.header.term,
                });
                if is_synced || has_proof {
                    return (first, has_proof);
                }
            }
            offset += ALIGN;
        }
        (first, false)
    }

    /// The record at `offset`, if it is valid and can be a later one of this log.
    fn live_record_at(&self, offset: u64) -> Option<Stored<'a>> {
        if !self.looks_like_a_record(offset) {
            return None;
        }
        let stored = self.decode(offset).ok()?;
        let (index, generation) = (stored.header.index, stored.prefix.generation);
        let is_later =
            index > self.next_index() || (index == self.next_index() && offset > self.found.end);
        let is_ours = self.rules.next.is_none_or(|next| index < next.base);
        let is_live = (self.lowest_live(offset)..=self.rules.generation).contains(&generation);
        (is_later && is_ours && is_live && stored.header.term >= self.found.last_term)
            .then_some(stored)
    }

    /// Notes the entries in front of `gap` as damaged. Of the first one, which did not check, the name may
    /// still be known.
    fn pass(&mut self, gap: &Gap, bad: &BadRecord) -> Result<(), Damage> {
        let mut first = self.damage(bad);
        if first.term.is_some_and(|term| term > gap.term_most) {
            (first.term, first.kind) = (None, None); // The header speaks of another entry.
        }
        let term_falls = gap.term_most < self.found.last_term;
        // Each of them lay behind here, in this segment.
        let room = (self.bytes.len() as u64).saturating_sub(first.offset) / format::stored_bytes(0);
        let count = gap.index.saturating_sub(first.index);
        let is_outside = gap.offset > self.bytes.len() as u64;
        if count == 0 || count > room || is_outside || term_falls {
            // The control file, or the next segment, speaks of a place that the records do not lead to.
            return Err(first);
        }
        let offset = u32::try_from(self.found.end).expect("a segment is shorter than 4 GiB");
        let unreadable = self.unreadable_in(self.found.end..gap.offset);
        let fault = unreadable.unwrap_or(bad.fault);
        for index in first.index..gap.index {
            let named = (index == first.index).then_some(first);
            let last_term = gap.last_term.filter(|_| index + 1 == gap.index);
            let term = named.and_then(|named| named.term).or(last_term);
            if let Some(term) = term {
                self.found.terms.push(index, term);
                self.found.last_term = term;
            }
            self.found.offsets.push(offset);
            self.found.faulty.push(Damage {
                index,
                term,
                kind: named.and_then(|named| named.kind),
                fault,
                ..first
            });
        }
        self.found.end = gap.offset;
        Ok(())
    }

    /// The first unreadable place in `range`, as a fault.
    fn unreadable_in(&self, range: Range<u64>) -> Option<Fault> {
        let touches = |part: &&Range<u64>| part.start < range.end && part.end > range.start;
        let part = self.rules.unreadable.iter().find(touches);
        part.map(|_| Fault::new(Check::Unreadable, 0u32, EIO.unsigned_abs()))
    }

    /// The end of the log is where no later record is. One that cannot be read could be just that.
    fn check_end_is_readable(&self) -> Result<(), Damage> {
        let behind = self.found.end..self.bytes.len() as u64;
        match self.unreadable_in(behind) {
            Some(fault) => Err(self.damage(&BadRecord::unnamed(fault))),
            None => Ok(()),
        }
    }

    /// Cheap look at the fixed bytes of a header, so that zeros are passed over quickly.
    fn looks_like_a_record(&self, offset: u64) -> bool {
        let at = offset as usize + PREFIX_BYTES;
        self.bytes[at + 5] == RECORD_VERSION && self.bytes[at + 4] != 0
    }

    /// How many bytes behind the end were written there, as far as that can be told: a recycled segment is
    /// full of old records.
    fn torn_bytes(&self) -> u64 {
        let behind = self.bytes.get(self.found.end as usize..).unwrap_or(&[]);
        let generation = behind
            .first_chunk::<PREFIX_BYTES>()
            .map_or(0, |prefix| Prefix::decode(prefix).generation);
        let is_leftover = generation != self.rules.generation
            && (self.header.recycled || self.decode(self.found.end).is_ok());
        let written = behind.iter().rposition(|byte| *byte != 0);
        written
            .filter(|_| !is_leftover)
            .map_or(0, |last| last as u64 + 1)
    }

    fn damage(&self, bad: &BadRecord) -> Damage {
        // The index that must be here is known even if the record's own header is not intact.
        let index = self.next_index();
        let is_this = |names: &Names| names.index == index && names.term >= self.found.last_term;
        let names = bad.names.filter(is_this);
        Damage {
            offset: self.found.end,
            index,
            term: names.map(|names| names.term),
            kind: names.map(|names| names.kind),
            fault: bad.fault,
        }
    }
}

#[cfg(test)]
mod tests;
