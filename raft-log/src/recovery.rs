//! Reads the records of a segment back, and tells a torn tail from corruption. Pure: bytes in.
//!
//! This is the only place where something written may be dropped, and the rule is short. A record that
//! does not check is *torn* only if it lies above the watermark and no valid live record behind it says
//! that a sync had returned beyond the bad one's start. Otherwise a completed sync covered it, and it is
//! *corrupt*: the log does not end there.
//!
//! The story without the second half: n1 appends (7, t2), syncs, tells its leader, appends (8, t2) and
//! syncs; the power fails before the watermark reaches the disk. Then (7, t2) rots. By the watermark alone
//! n1 would find a bad record above it, cut both off and later deny what it had acknowledged. But (8, t2)
//! carries `synced_to` behind (7, t2): n1 must not start.

use crate::format::{
    self, ALIGN, BadRecord, Check, Cut, Fault, Mark, PREFIX_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, Stored,
};
use crate::record::{HEADER_BYTES, RECORD_VERSION};
use crate::terms::Terms;

/// What the control file and the other segments say about the segment to be scanned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) cluster: u32,
    pub(crate) generation: u64,
    pub(crate) cut: Cut,
    pub(crate) watermark: Mark,
    /// Index with which the next live segment begins; `None` for the last one. Everything before it was
    /// synced before that segment got its name.
    pub(crate) next_base: Option<u64>,
    /// First part of the segment that the medium does not give back, with the error number.
    pub(crate) unreadable: Option<(u64, i32)>,
}

/// The live records of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Offset of each, ascending; the first has the segment's base index.
    pub(crate) offsets: Vec<u32>,
    pub(crate) terms: Terms,
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
    pub(crate) fault: Fault,
}

/// Why the walk over live records stopped.
enum Stop {
    /// The next segment begins here.
    NextSegment,
    /// A leftover of an earlier generation.
    Dead(Fault),
    Bad(BadRecord),
    /// A generation that the control file has not reached: the control file went back.
    Future(Fault),
}

/// Reads all live records of a segment; `bytes` is the whole file.
pub(crate) fn scan(rules: &Rules, header: &SegmentHeader, bytes: &[u8]) -> Result<Scan, Damage> {
    let mut walk = Walk::new(rules, header, bytes);
    let stop = walk.run();
    if let Some((place, errno)) = rules.unreadable {
        return Err(walk.unreadable(place, errno));
    }
    match stop {
        Stop::NextSegment => Ok(walk.found),
        Stop::Future(fault) => Err(walk.damage(fault, None)),
        Stop::Dead(fault) => {
            walk.check_may_end_here(fault, None)?;
            Ok(walk.found)
        }
        Stop::Bad(bad) => {
            walk.check_may_end_here(bad.fault, bad.names)?;
            walk.found.torn_bytes = walk.written_behind();
            Ok(walk.found)
        }
    }
}

struct Walk<'a> {
    rules: &'a Rules,
    header: &'a SegmentHeader,
    bytes: &'a [u8],
    found: Scan,
    /// Generation of the last live record.
    generation: u64,
}

impl<'a> Walk<'a> {
    fn new(rules: &'a Rules, header: &'a SegmentHeader, bytes: &'a [u8]) -> Walk<'a> {
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

    fn run(&mut self) -> Stop {
        loop {
            if self.rules.next_base == Some(self.next_index()) {
                return Stop::NextSegment;
            }
            let stored = match self.decode(self.found.end) {
                Ok(stored) => stored,
                Err(bad) => return Stop::Bad(bad),
            };
            if let Err(stop) = self.check_live(&stored) {
                return stop;
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
            return Err(Stop::Dead(Fault::new(
                Check::Generation,
                lowest,
                generation,
            )));
        }
        let names = Some((stored.header.index, stored.header.term));
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
    fn check_may_end_here(&self, fault: Fault, names: Option<(u64, u64)>) -> Result<(), Damage> {
        let corrupt = Err(self.damage(fault, names));
        if self.rules.next_base.is_some() {
            return corrupt;
        }
        let watermark = &self.rules.watermark;
        let below = watermark.segment == self.header.number && self.found.end < watermark.offset;
        if below || self.next_index() <= watermark.index {
            return corrupt;
        }
        if self.later_record_was_written_after_a_sync() {
            corrupt
        } else {
            Ok(())
        }
    }

    fn later_record_was_written_after_a_sync(&self) -> bool {
        let start = self.found.end;
        let mut offset = start + ALIGN;
        while offset + ((PREFIX_BYTES + HEADER_BYTES) as u64) <= self.bytes.len() as u64 {
            if self.looks_like_a_record(offset)
                && let Ok(stored) = self.decode(offset)
                && stored.prefix.generation >= self.lowest_live(offset)
                && u64::from(stored.prefix.synced_to) > start
            {
                return true;
            }
            offset += ALIGN;
        }
        false
    }

    /// Cheap look at the fixed bytes of a header, so that zeros are passed over quickly.
    fn looks_like_a_record(&self, offset: u64) -> bool {
        let at = offset as usize + PREFIX_BYTES;
        self.bytes[at + 5] == RECORD_VERSION && self.bytes[at + 4] != 0
    }

    fn written_behind(&self) -> u64 {
        let behind = self.bytes.get(self.found.end as usize..).unwrap_or(&[]);
        behind
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last as u64 + 1)
    }

    fn damage(&self, fault: Fault, names: Option<(u64, u64)>) -> Damage {
        // The index that must be here is known even if the record's own header is not intact.
        let index = self.next_index();
        let term = names
            .filter(|(named, _)| *named == index)
            .map(|(_, term)| term);
        Damage {
            offset: self.found.end,
            index,
            term,
            fault,
        }
    }

    fn unreadable(&self, place: u64, errno: i32) -> Damage {
        let fault = Fault::new(Check::Unreadable, 0u32, errno.unsigned_abs());
        let before = self
            .found
            .offsets
            .partition_point(|offset| u64::from(*offset) <= place);
        match before.checked_sub(1) {
            Some(record) if place < self.found.end => {
                let index = self.header.base + record as u64;
                let offset = u64::from(self.found.offsets[record]);
                Damage {
                    offset,
                    index,
                    term: self.found.terms.term(index),
                    fault,
                }
            }
            Some(_) | None => Damage {
                offset: place,
                index: self.next_index(),
                term: None,
                fault,
            },
        }
    }
}

#[cfg(test)]
mod tests;
