//! The writer's half of the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::Control;
use crate::error::{IoContext, IoFault, WalError};
use crate::format::{Mark, SegmentHeader};
use crate::fs::{File, Fs};
use crate::hard_state::HardState;
use crate::options::{Binding, Options};
use crate::pending::{Buffer, Place, Run};
use crate::reader::Reader;
use crate::record::payload_checksum;
use crate::repairs::Repairs;
use crate::seal::seal_next;
use crate::segment::{Preparer, Spare, TailSegment, activate, allocate, fresh_tail};
use crate::terms::Terms;
use crate::view::{Listed, Places, Shared};

mod open;
mod repair;
mod shrink;

pub use open::{Depth, FaultyEntry, Inspection, Opened, SegmentInfo, Tail, inspect};

/// An entry to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Position in the log; the next one.
    pub index: u64,
    /// Term in which a leader made it; not lower than the term before.
    pub term: u64,
    /// Kind; the caller's, but never 0.
    pub kind: u8,
    /// Payload.
    pub payload: &'a [u8],
    /// Checksum of the payload, as [`payload_checksum`] makes it.
    pub payload_crc: u32,
}

/// The log, as its one writer has it.
///
/// [`append`](Wal::append) copies entries into the group that the next [`sync`](Wal::sync) makes durable.
/// Everything else that changes the log is durable on return. After the first write or sync that fails,
/// every call answers [`WalError::Poisoned`], because nobody knows what the disk holds.
#[derive(Debug)]
pub struct Wal<F: Fs> {
    fs: F,
    dir: PathBuf,
    binding: Binding,
    options: Options,
    shared: Arc<Shared<F>>,
    control: Control<F>,
    hard_state: HardState<F>,
    tail: Option<TailSegment<F>>,
    /// Accepted, not yet written; in order.
    pending: Vec<Run<F>>,
    /// Copies of entries that were damaged.
    repairs: Repairs<F>,
    /// Terms of all accepted entries.
    terms: Terms,
    last_index: u64,
    last_term: u64,
    /// Highest commit index the caller noted.
    commit: u64,
    next_segment: u64,
    /// Kept so that a group usually allocates nothing.
    idle_buffer: Buffer,
    /// Last field, so that the lock goes when everything else is gone.
    lock: Arc<F::Lock>,
}

impl<F: Fs> Wal<F> {
    /// Accepts entries for the next [`sync`](Wal::sync). Either all of them or, on an error, none.
    ///
    /// Nothing is written yet, but room for all of it is allocated, so a full disk is refused here.
    ///
    /// # Errors
    /// [`WalError::OutOfOrder`], [`WalError::TooLarge`], [`WalError::PayloadChecksum`],
    /// [`WalError::NoKind`] and [`WalError::NoSpace`] change nothing. [`WalError::Io`] comes only from
    /// allocating a segment that was not prepared; the log is poisoned then.
    pub fn append(&mut self, entries: &[EntryRef<'_>]) -> Result<(), WalError> {
        self.check_usable()?;
        self.check_entries(entries)?;
        let fresh = self.segments_needed(entries);
        self.reserve_spares(fresh)?;
        for entry in entries {
            if !self.place().fits(entry.payload.len() as u64) {
                self.begin_fresh_run();
            } else if self.pending.is_empty() {
                self.begin_tail_run();
            }
            let run = self.pending.last_mut().expect("a run was begun above");
            run.push(self.binding.cluster, entry);
            self.terms.push(entry.index, entry.term);
            self.last_index = entry.index;
            self.last_term = entry.term;
        }
        Ok(())
    }

    /// Makes everything appended durable: one write and one `fdatasync` per segment touched, nearly
    /// always one. Then raises the watermark, lazily.
    ///
    /// # Errors
    /// [`WalError::Io`]: nothing of the group may be acknowledged, now or later; the log is poisoned.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.check_usable()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let runs = std::mem::take(&mut self.pending);
        for run in runs {
            self.write_run(run)
                .map_err(|fault| self.shared.fail(fault))?;
        }
        self.raise_watermark();
        self.control
            .write()
            .map_err(|fault| self.shared.fail(fault))
    }

    /// Stores term and vote, durable in both copies on return.
    ///
    /// # Errors
    /// [`WalError::VoteChanged`] changes nothing; after [`WalError::Io`] the log is poisoned.
    pub fn set_hard_state(&mut self, term: u64, vote: Option<u64>) -> Result<(), WalError> {
        self.check_usable()?;
        self.hard_state
            .set(term, vote)
            .map_err(|error| self.shared.fail_unless_full(error))
    }

    /// Notes how far the log is committed. A hint: stored with the next watermark, never above it.
    pub fn note_commit(&mut self, index: u64) {
        self.commit = self.commit.max(index);
    }

    /// Makes watermark and commit hint durable. Called some 50 ms after the last append: what was synced
    /// before is from then on protected from a power cut *and* rot together.
    ///
    /// # Errors
    /// After [`WalError::Io`] the log is poisoned.
    pub fn flush_control(&mut self) -> Result<(), WalError> {
        self.check_usable()?;
        self.raise_watermark();
        self.control
            .flush()
            .map_err(|fault| self.shared.fail(fault))
    }

    /// Syncs everything, gives every full segment its index, marks the log as closed and releases the directory.
    ///
    /// # Errors
    /// As for [`sync`](Wal::sync).
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()?;
        while seal_next(&self.shared, self.binding)? {}
        self.flush_control()?;
        self.control.change(|slot| slot.closed = true);
        self.control
            .store()
            .map_err(|fault| self.shared.fail(fault))
    }

    /// A reader of what is synced.
    #[must_use]
    pub fn reader(&self) -> Reader<F> {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// What prepares segments ahead.
    #[must_use]
    pub fn preparer(&self) -> Preparer<F> {
        Preparer {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            binding: self.binding,
            options: self.options.clone(),
            shared: Arc::clone(&self.shared),
            lock: Arc::downgrade(&self.lock),
        }
    }

    /// First entry of the log; [`last_index`](Wal::last_index) + 1 if it is empty.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.floor().0 + 1
    }

    /// Last accepted entry, synced or not.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Term of the last accepted entry, or of the floor if there is none.
    #[must_use]
    pub fn last_term(&self) -> u64 {
        self.last_term
    }

    /// (index, term) of the last entry that was purged or replaced by a snapshot; (0, 0) if none was.
    #[must_use]
    pub fn floor(&self) -> (u64, u64) {
        self.control.slot().floor
    }

    /// Term of an accepted entry, or of the floor; none for a damaged entry of which not even that is known.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        let (floor, floor_term) = self.floor();
        if index == floor {
            return Some(floor_term);
        }
        if let Some(corruption) = self.shared.view().faulty.get(&index) {
            return corruption.term;
        }
        (index > floor && index <= self.last_index)
            .then(|| self.terms.term(index))
            .flatten()
    }

    /// Stored term and vote.
    #[must_use]
    pub fn hard_state(&self) -> (u64, Option<u64>) {
        (self.hard_state.term, self.hard_state.vote)
    }

    /// Bytes that can be appended without allocating: the rest of the tail and the spares.
    #[must_use]
    pub fn prepared_bytes(&self) -> u64 {
        let place = self.place();
        let end = crate::format::records_end(place.segment_bytes, place.count + 1);
        let rest = if place.full {
            0
        } else {
            end.saturating_sub(place.end)
        };
        let spares: u64 = self
            .shared
            .pool()
            .ready
            .iter()
            .map(|spare| spare_room(spare.bytes))
            .sum();
        rest + spares
    }

    /// Bytes of all segments and spares.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    fn check_usable(&self) -> Result<(), WalError> {
        if self.shared.is_poisoned() {
            Err(WalError::Poisoned)
        } else {
            Ok(())
        }
    }

    fn check_entries(&self, entries: &[EntryRef<'_>]) -> Result<(), WalError> {
        let (mut last_index, mut last_term) = (self.last_index, self.last_term);
        for entry in entries {
            let EntryRef { index, term, .. } = *entry;
            if index != last_index + 1 || term < last_term || term == 0 {
                return Err(WalError::OutOfOrder {
                    index,
                    term,
                    last_index,
                    last_term,
                });
            }
            self.check_content(entry)?;
            (last_index, last_term) = (index, term);
        }
        Ok(())
    }

    /// Checks what does not depend on the place in the log.
    fn check_content(&self, entry: &EntryRef<'_>) -> Result<(), WalError> {
        let (index, bytes) = (entry.index, entry.payload.len() as u64);
        let limit = self.options.payload_bytes_max();
        if entry.kind == 0 {
            return Err(WalError::NoKind { index });
        }
        if bytes > limit {
            return Err(WalError::TooLarge {
                index,
                bytes,
                limit,
            });
        }
        // The bytes came through memory and perhaps a network: what is written must be readable.
        let (expected, found) = (
            entry.payload_crc,
            payload_checksum(self.binding.cluster, entry.payload),
        );
        if found != expected {
            return Err(WalError::PayloadChecksum {
                index,
                expected,
                found,
            });
        }
        Ok(())
    }

    /// Where the next accepted record goes.
    fn place(&self) -> Place {
        match (self.pending.last(), &self.tail) {
            (Some(run), _) => run.place(),
            (None, Some(tail)) => tail_place(tail),
            (None, None) => Place::nowhere(),
        }
    }

    fn segments_needed(&self, entries: &[EntryRef<'_>]) -> usize {
        let (mut place, mut fresh) = (self.place(), 0);
        for entry in entries {
            let bytes = entry.payload.len() as u64;
            if !place.fits(bytes) {
                fresh += 1;
                place = Place::fresh(self.options.segment_bytes);
            }
            place.take(bytes);
        }
        fresh
    }

    /// Has at least `count` spares ready, allocating on the spot what the preparer has not.
    fn reserve_spares(&mut self, count: usize) -> Result<(), WalError> {
        self.reserve_spares_within(count, self.options.max_bytes)
    }

    /// Has a spare ready for copies of damaged entries, whatever the size limit: a node whose log is full and
    /// damaged applies nothing, takes no snapshot and purges nothing before it has these copies.
    fn reserve_spare_for_copies(&mut self) -> Result<(), WalError> {
        self.reserve_spares_within(1, u64::MAX)
    }

    fn reserve_spares_within(&mut self, count: usize, limit: u64) -> Result<(), WalError> {
        loop {
            let number = {
                let mut pool = self.shared.pool();
                if pool.ready.len() >= count {
                    return Ok(());
                }
                let bytes = pool.bytes(&self.shared, &self.options);
                let needed = self.options.segment_bytes;
                if bytes + needed > limit {
                    let available = limit.saturating_sub(bytes);
                    return Err(WalError::NoSpace { needed, available });
                }
                pool.reserve()
            };
            let result = allocate(&self.fs, &self.dir, &self.options, number);
            let mut pool = self.shared.pool();
            pool.preparing -= 1;
            match result {
                Ok(spare) => {
                    self.shared.bytes.fetch_add(spare.bytes, Ordering::Relaxed);
                    pool.ready.push(spare);
                }
                Err(error) => {
                    drop(pool);
                    return Err(self.shared.fail_unless_full(error));
                }
            }
        }
    }

    fn begin_tail_run(&mut self) {
        let tail = self
            .tail
            .as_ref()
            .expect("there is room in the tail, so there is a tail");
        let buffer = std::mem::take(&mut self.idle_buffer);
        let generation = self.control.slot().generation;
        let place = tail_place(tail);
        let segment = &tail.segment;
        let run = Run::at_tail(place, segment.number, segment.nonce, generation, buffer);
        self.pending.push(run);
    }

    fn begin_fresh_run(&mut self) {
        let spare = self
            .shared
            .pool()
            .ready
            .pop()
            .expect("reserve_spares made as many as needed");
        let header = SegmentHeader {
            number: self.next_segment,
            nonce: self.fs.random_u64(),
            base: self.last_index + 1,
            previous_term: self.last_term,
            generation: self.control.slot().generation,
            segment_bytes: spare.bytes,
            recycled: spare.recycled,
            repairs: false,
            follows: self.newest_segment() as u32,
        };
        self.next_segment += 1;
        let buffer = std::mem::take(&mut self.idle_buffer);
        self.pending.push(Run::at_fresh(spare, header, buffer));
    }

    /// Number of the segment that the next record would go to.
    fn newest_segment(&self) -> u64 {
        match (self.pending.last(), &self.tail) {
            (Some(run), _) => run.segment,
            (None, Some(tail)) => tail.segment.number,
            (None, None) => 0,
        }
    }

    fn write_run(&mut self, mut run: Run<F>) -> Result<(), IoFault> {
        if let Some((spare, header)) = run.fresh.take() {
            self.take_into_use(spare, &header)?;
        }
        let end = run.end();
        let tail = self
            .tail
            .as_mut()
            .expect("a run without a fresh segment goes to the tail");
        assert_eq!(tail.end, run.start, "a run encoded for another place");
        let path = &tail.segment.path;
        tail.segment
            .file
            .write_at(&run.buffer.bytes, run.start)
            .during("write", path)?;
        tail.segment.file.sync_data().during("sync", path)?;
        tail.end = end;
        tail.count += run.buffer.offsets.len() as u64;
        self.publish(&run, end);
        run.buffer.clear();
        self.idle_buffer = run.buffer;
        Ok(())
    }

    /// Lets readers see a run that was synced.
    fn publish(&self, run: &Run<F>, end: u64) {
        let mut view = self.shared.view();
        view.last_index += run.buffer.offsets.len() as u64;
        view.terms.extend(&run.buffer.terms);
        let listed = view.segments.back_mut().expect("the tail is listed");
        let Places::Listed(offsets) = &mut listed.places else {
            unreachable!("a sealed segment takes no more records")
        };
        offsets.extend_from_slice(&run.buffer.offsets);
        listed.count += run.buffer.offsets.len() as u64;
        listed.end = end;
    }

    /// Rotation. Everything before is synced, so that a segment's name proves that the ones before it
    /// are complete; the control file says the same before that name exists.
    fn take_into_use(&mut self, spare: Spare<F>, header: &SegmentHeader) -> Result<(), IoFault> {
        self.raise_watermark();
        self.control.flush()?;
        let segment = activate(&self.fs, &self.dir, self.binding, spare, header)?;
        let tail = fresh_tail(segment);
        let listed = Listed {
            segment: Arc::clone(&tail.segment),
            places: Places::Listed(Vec::new()),
            count: 0,
            end: tail.end,
            is_sealed: false,
            cannot_be_sealed: false,
        };
        self.shared.view().segments.push_back(listed);
        self.tail = Some(tail);
        Ok(())
    }

    /// Notes in memory how far the log is synced, and the commit hint up to there.
    fn raise_watermark(&mut self) {
        let Some(tail) = &self.tail else { return };
        let (index, term) = {
            let view = self.shared.view();
            let index = view.last_index;
            (
                index,
                view.term(index)
                    .expect("the last entry or the floor has a term"),
            )
        };
        let watermark = Mark {
            segment: tail.segment.number,
            offset: tail.end,
            index,
            term,
        };
        let commit = self.commit.min(index);
        self.control.change(|slot| {
            slot.watermark = watermark;
            slot.commit = commit;
        });
    }
}

fn tail_place<F: Fs>(tail: &TailSegment<F>) -> Place {
    Place {
        segment_bytes: tail.segment.bytes,
        end: tail.end,
        count: tail.count,
        full: tail.full,
    }
}

/// Room for records in an unused segment, if they are not many small ones.
fn spare_room(segment_bytes: u64) -> u64 {
    crate::format::records_end(segment_bytes, 1).saturating_sub(crate::format::SEGMENT_HEADER_BYTES)
}
