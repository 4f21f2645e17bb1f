//! Term and vote, stored twice.

use std::path::Path;

use crate::dir;
use crate::error::{Corruption, OpenError, TwinError, WalError};
use crate::format::{Check, Fault, HARD_STATE_MAGIC};
use crate::fs::Fs;
use crate::options::Binding;
use crate::twin::{Report, TwinFile};

/// term, whether there is a vote, vote.
const CONTENT_BYTES: usize = 17;

#[derive(Debug)]
pub(crate) struct HardState<F: Fs> {
    twin: TwinFile<F>,
    pub(crate) term: u64,
    pub(crate) vote: Option<u64>,
}

/// Term and vote as they are stored, and whose they are.
pub(crate) struct StoredVote {
    pub(crate) binding: Binding,
    pub(crate) term: u64,
    pub(crate) vote: Option<u64>,
    /// Whether one copy is damaged.
    pub(crate) report: Option<Report>,
}

impl<F: Fs> HardState<F> {
    pub(crate) fn create(fs: &F, dir: &Path, binding: Binding) -> Result<(), TwinError> {
        let path = dir.join(dir::HARD_STATE);
        TwinFile::create(fs, &path, HARD_STATE_MAGIC, binding, &encode(0, None)).map(|_| ())
    }

    pub(crate) fn open(
        fs: &F,
        dir: &Path,
        binding: Binding,
    ) -> Result<(HardState<F>, Option<Report>), OpenError> {
        let path = dir.join(dir::HARD_STATE);
        let (twin, content, report) = TwinFile::open(fs, &path, HARD_STATE_MAGIC, binding)?;
        let Some((term, vote)) = decode(&content) else {
            let fault = Fault::new(Check::Length, CONTENT_BYTES as u64, content.len() as u64);
            return Err(Corruption::of_block(&path, 0, fault).into());
        };
        Ok((HardState { twin, term, vote }, report))
    }

    /// What is stored, without opening the file for use.
    pub(crate) fn look(fs: &F, dir: &Path) -> Result<StoredVote, OpenError> {
        let path = dir.join(dir::HARD_STATE);
        let (binding, content, report) = TwinFile::look(fs, &path, HARD_STATE_MAGIC)?;
        let Some((term, vote)) = decode(&content) else {
            let fault = Fault::new(Check::Length, CONTENT_BYTES as u64, content.len() as u64);
            return Err(Corruption::of_block(&path, 0, fault).into());
        };
        Ok(StoredVote {
            binding,
            term,
            vote,
            report,
        })
    }

    /// Durable in both copies on return.
    pub(crate) fn set(&mut self, term: u64, vote: Option<u64>) -> Result<(), WalError> {
        let (last_term, last_vote) = (self.term, self.vote);
        let revoked = term == last_term && last_vote.is_some() && vote != last_vote;
        if term < last_term || revoked {
            return Err(WalError::VoteChanged {
                term,
                vote,
                last_term,
                last_vote,
            });
        }
        match self.twin.write(&encode(term, vote)) {
            Ok(()) => {
                self.term = term;
                self.vote = vote;
                Ok(())
            }
            Err(TwinError::Io(fault)) => Err(WalError::Io(fault)),
            // The content has a fixed length and the file exists, so nothing else is left.
            Err(
                TwinError::Poisoned { .. } | TwinError::Exists { .. } | TwinError::TooLarge { .. },
            ) => Err(WalError::Poisoned),
        }
    }
}

fn encode(term: u64, vote: Option<u64>) -> [u8; CONTENT_BYTES] {
    let mut content = [0; CONTENT_BYTES];
    content[0..8].copy_from_slice(&term.to_le_bytes());
    content[8] = u8::from(vote.is_some());
    content[9..17].copy_from_slice(&vote.unwrap_or(0).to_le_bytes());
    content
}

fn decode(content: &[u8]) -> Option<(u64, Option<u64>)> {
    let content: &[u8; CONTENT_BYTES] = content.try_into().ok()?;
    let (term, rest) = content.split_first_chunk::<8>()?;
    let (flag, vote) = rest.split_first()?;
    let vote = u64::from_le_bytes(vote.try_into().ok()?);
    Some((u64::from_le_bytes(*term), (*flag != 0).then_some(vote)))
}
