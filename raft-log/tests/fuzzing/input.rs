//! An input is cut from the front; behind its end there are zeros.

pub use crate::support::random::Random;

/// The part of an input that was not looked at yet.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes, or as many as there are.
    pub fn piece(&mut self, count: usize) -> &'a [u8] {
        let (piece, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        piece
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.piece(self.rest.len())
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`, from two bytes; 0 if there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.short()) % bound.max(1)
    }

    fn array<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let piece = self.piece(BYTES);
        bytes[..piece.len()].copy_from_slice(piece);
        bytes
    }
}

/// More of what random inputs are made of.
impl Random {
    /// A place below `bound`, which is not 0.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.long() as u8).collect()
    }

    /// Edits a few places: bits, bytes, extreme numbers, bytes put in and taken out.
    pub fn edit(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.index(6) {
            if bytes.is_empty() {
                return;
            }
            let at = self.index(bytes.len());
            let number = (at + 1 + self.index(8)).min(bytes.len());
            match self.index(8) {
                0 | 1 => bytes[at] ^= 1 << self.index(8),
                2 | 3 => bytes[at] = self.long() as u8,
                4 => bytes[at..number].fill(0xff),
                5 => bytes[at..number].fill(0),
                6 => drop(bytes.drain(at..number)),
                _ => {
                    let new = self.bytes(number - at);
                    bytes.splice(at..at, new);
                }
            }
        }
    }
}
