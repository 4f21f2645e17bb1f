//! Entries accepted but not yet written: the group of a group commit.

use crate::format::{
    PREFIX_BYTES, Prefix, SEGMENT_HEADER_BYTES, SegmentHeader, bind, records_end, stored_bytes,
};
use crate::fs::Fs;
use crate::record::{self, HEADER_BYTES, RecordHeader};
use crate::segment::Spare;
use crate::terms::Terms;
use crate::wal::EntryRef;

/// Records for one segment, encoded for their place in it.
#[derive(Debug)]
pub(crate) struct Run<F: Fs> {
    /// The segment that must be taken into use first; `None`: the tail.
    pub(crate) fresh: Option<(Spare<F>, SegmentHeader)>,
    pub(crate) start: u64,
    pub(crate) buffer: Buffer,
    /// Number of the segment.
    pub(crate) segment: u64,
    nonce: u64,
    segment_bytes: u64,
    /// Records in the segment in front of this run.
    count_before: u64,
    synced_to: u32,
    generation: u64,
}

/// The growing parts of a run, kept for the next one.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offsets: Vec<u32>,
    pub(crate) terms: Terms,
}

impl Buffer {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.offsets.clear();
        self.terms.clear();
    }
}

/// Where in a segment the next record goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment_bytes: u64,
    pub(crate) end: u64,
    pub(crate) count: u64,
    pub(crate) full: bool,
}

impl Place {
    pub(crate) fn fresh(segment_bytes: u64) -> Place {
        Place {
            segment_bytes,
            end: SEGMENT_HEADER_BYTES,
            count: 0,
            full: false,
        }
    }

    /// A place where nothing fits: before the first segment.
    pub(crate) fn nowhere() -> Place {
        Place {
            segment_bytes: 0,
            end: 0,
            count: 0,
            full: true,
        }
    }

    pub(crate) fn fits(&self, payload_bytes: u64) -> bool {
        let room = records_end(self.segment_bytes, self.count + 1);
        !self.full && self.end + stored_bytes(payload_bytes) <= room
    }

    pub(crate) fn take(&mut self, payload_bytes: u64) {
        self.end += stored_bytes(payload_bytes);
        self.count += 1;
    }
}

impl<F: Fs> Run<F> {
    /// A run at the end of the tail.
    pub(crate) fn at_tail(
        place: Place,
        segment: u64,
        nonce: u64,
        generation: u64,
        buffer: Buffer,
    ) -> Run<F> {
        let synced_to = u32::try_from(place.end).expect("segments are shorter than 4 GiB");
        Run {
            fresh: None,
            start: place.end,
            buffer,
            segment,
            nonce,
            segment_bytes: place.segment_bytes,
            count_before: place.count,
            synced_to,
            generation,
        }
    }

    /// A run at the front of a segment that is taken into use for it.
    pub(crate) fn at_fresh(spare: Spare<F>, header: SegmentHeader, buffer: Buffer) -> Run<F> {
        Run {
            start: SEGMENT_HEADER_BYTES,
            buffer,
            segment: header.number,
            nonce: header.nonce,
            segment_bytes: header.segment_bytes,
            count_before: 0,
            // The header was synced before the segment got its name.
            synced_to: SEGMENT_HEADER_BYTES as u32,
            generation: header.generation,
            fresh: Some((spare, header)),
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            segment_bytes: self.segment_bytes,
            end: self.end(),
            count: self.count_before + self.buffer.offsets.len() as u64,
            full: false,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.buffer.bytes.len() as u64
    }

    /// Encodes one entry behind the others. Its checksum was verified.
    pub(crate) fn push(&mut self, cluster: u32, entry: &EntryRef<'_>) {
        let offset = u32::try_from(self.end()).expect("segments are shorter than 4 GiB");
        let place = Binds {
            nonce: self.nonce,
            offset,
            synced_to: self.synced_to,
            generation: self.generation,
        };
        encode_stored(&mut self.buffer.bytes, cluster, &place, entry);
        self.buffer.offsets.push(offset);
        self.buffer.terms.push(entry.index, entry.term);
    }
}

/// What binds a record to its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binds {
    pub(crate) nonce: u64,
    pub(crate) offset: u32,
    pub(crate) synced_to: u32,
    pub(crate) generation: u64,
}

/// Appends an entry as it is stored: prefix, header, payload, padding. Its checksum was verified.
pub(crate) fn encode_stored(
    bytes: &mut Vec<u8>,
    cluster: u32,
    place: &Binds,
    entry: &EntryRef<'_>,
) {
    let EntryRef {
        index,
        term,
        kind,
        payload,
        payload_crc,
    } = *entry;
    let payload_bytes = u32::try_from(payload.len()).expect("checked against the segment's size");
    let header = RecordHeader {
        index,
        term,
        kind,
        payload_bytes,
        payload_crc,
    };
    let header = record::encode_header(cluster, &header);
    let (_, header_crc) = header
        .split_last_chunk::<4>()
        .expect("it ends with its checksum");
    let header_crc = u32::from_le_bytes(*header_crc);
    let Binds {
        nonce,
        offset,
        synced_to,
        generation,
    } = *place;
    let bind = bind(
        nonce,
        offset,
        synced_to,
        generation,
        header_crc,
        payload_crc,
    );
    let prefix = Prefix {
        synced_to,
        bind,
        generation,
    };
    let end = bytes.len() + stored_bytes(payload.len() as u64) as usize;
    bytes.reserve(end - bytes.len());
    bytes.extend_from_slice(&prefix.encode());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(payload);
    bytes.resize(end, 0);
}

const _: () = assert!((PREFIX_BYTES + HEADER_BYTES).is_multiple_of(8));
