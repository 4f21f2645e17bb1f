//! Seeded jitter. Not for secrets.

/// SplitMix64: small, has no bad seeds, and the same seed gives the same run on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`. The bias of the remainder is far below what a timeout could show.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no number lies below 0");
        (self.next_u64() % u64::from(bound)) as u32
    }
}
