//! Walking through the records of a segment without holding more of it than a piece.

use std::io;

use crate::format::{HEAD_BYTES, StoredHead, decode_head};
use crate::fs::File;
use crate::record::PayloadChecksum;

/// Bytes that are held at once, whatever a segment or a record takes.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

const _: () = assert!(PIECE_BYTES >= HEAD_BYTES);

/// Reads a file from the front to the back.
#[derive(Debug)]
pub(crate) struct Pieces<'a, T: File> {
    file: &'a T,
    /// Nothing is read from here on.
    end: u64,
    /// What is held, and where in the file it begins.
    piece: Vec<u8>,
    begin: u64,
    piece_bytes: usize,
}

impl<'a, T: File> Pieces<'a, T> {
    pub(crate) fn new(file: &'a T, end: u64, piece_bytes: usize) -> Pieces<'a, T> {
        Pieces {
            file,
            end,
            piece: Vec::new(),
            begin: 0,
            piece_bytes,
        }
    }

    /// The record stored at `offset`, without its payload; none if it does not check or leaves the file's end.
    pub(crate) fn record(
        &mut self,
        cluster: u32,
        nonce: u64,
        offset: u64,
    ) -> io::Result<Option<StoredHead>> {
        let bytes = self.bytes(offset, HEAD_BYTES)?;
        let Ok(head) = decode_head(cluster, nonce, offset, bytes) else {
            return Ok(None);
        };
        let begin = offset + HEAD_BYTES as u64;
        let end = begin + u64::from(head.header.payload_bytes);
        if end > self.end {
            return Ok(None);
        }
        let found = self.checksum(cluster, begin, end)?;
        Ok((found == head.header.payload_crc).then_some(head))
    }

    /// Checksum of the payload from `at` to `end`.
    fn checksum(&mut self, cluster: u32, mut at: u64, end: u64) -> io::Result<u32> {
        let mut checksum = PayloadChecksum::new(cluster);
        while at < end {
            let bytes = self.bytes(at, 1)?;
            let count = bytes.len().min((end - at) as usize);
            checksum.update(&bytes[..count]);
            at += count as u64;
        }
        Ok(checksum.finish())
    }

    /// What is held from `at` on; at least so many bytes, unless the end comes before.
    fn bytes(&mut self, at: u64, least: usize) -> io::Result<&[u8]> {
        let wanted = self.end.min(at + least as u64);
        let is_held = self.begin <= at && wanted <= self.begin + self.piece.len() as u64;
        if !is_held {
            let room = self.end.saturating_sub(at).min(self.piece_bytes as u64);
            self.piece.resize(room as usize, 0);
            self.begin = at;
            if let Err(error) = self.file.read_exact_at(&mut self.piece, at) {
                self.piece.clear();
                return Err(error);
            }
        }
        let from = (at - self.begin) as usize;
        Ok(self.piece.get(from..).unwrap_or(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::format::{ALIGN, SEGMENT_HEADER_BYTES};
    use crate::fs::{Fs, SimFile, SimFs};
    use crate::pending::{Binds, encode_stored};
    use crate::record::payload_checksum;
    use crate::wal::EntryRef;
    use proptest::prelude::*;

    const CLUSTER: u32 = 7;
    const NONCE: u64 = 9;

    /// A file with records of payloads of these lengths from where records begin, and the offset behind each.
    fn file_of(lengths: &[usize]) -> (SimFile, Vec<u64>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (index, length) in (1..).zip(lengths) {
            let payload = vec![index as u8; *length];
            let place = Binds {
                nonce: NONCE,
                offset: (SEGMENT_HEADER_BYTES as usize + bytes.len()) as u32,
                synced_to: SEGMENT_HEADER_BYTES as u32,
                generation: 1,
            };
            let entry = EntryRef {
                index,
                term: 1,
                kind: 2,
                payload: &payload,
                payload_crc: payload_checksum(CLUSTER, &payload),
            };
            encode_stored(&mut bytes, CLUSTER, &place, &entry);
            ends.push(SEGMENT_HEADER_BYTES + bytes.len() as u64);
        }
        let fs = SimFs::new(1);
        fs.create_dir_all(Path::new("/data")).unwrap();
        let file = fs.create_new(Path::new("/data/file")).unwrap();
        file.write_at(&bytes, SEGMENT_HEADER_BYTES).unwrap();
        (file, ends)
    }

    /// (index, offset behind it) of all records up to the first that does not check.
    fn walk(file: &SimFile, end: u64, piece_bytes: usize) -> Vec<(u64, u64)> {
        let mut pieces = Pieces::new(file, end, piece_bytes);
        let mut offset = SEGMENT_HEADER_BYTES;
        let mut found = Vec::new();
        while let Some(head) = pieces.record(CLUSTER, NONCE, offset).unwrap() {
            assert!(pieces.piece.capacity() <= 2 * piece_bytes);
            found.push((head.header.index, head.end));
            offset = head.end;
        }
        found
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_show_the_same_records(
            lengths in proptest::collection::vec(0usize..400, 1..12), piece_bytes in HEAD_BYTES..500,
        ) {
            let (file, ends) = file_of(&lengths);
            let end = *ends.last().unwrap();
            let all: Vec<(u64, u64)> = (1..).zip(ends).collect();
            prop_assert_eq!(&walk(&file, end, piece_bytes), &all);
            // The fill of the last record is shorter than this.
            prop_assert_eq!(&walk(&file, end - ALIGN, piece_bytes), &all[..all.len() - 1]);
        }

        #[test]
        fn changed_byte_of_a_record_is_noticed_in_whatever_piece_it_lies(
            lengths in proptest::collection::vec(1usize..400, 3), piece_bytes in HEAD_BYTES..500, place in 0usize..10_000,
        ) {
            let (file, ends) = file_of(&lengths);
            let place = ends[0] + (place % (HEAD_BYTES + lengths[1])) as u64;
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_at(&[byte[0] ^ 1], place).unwrap();
            prop_assert_eq!(walk(&file, ends[2], piece_bytes).len(), 1);
        }
    }
}
