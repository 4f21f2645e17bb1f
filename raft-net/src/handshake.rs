//! What two nodes tell each other before any message, and the reasons to refuse. Pure.
//!
//! The hello frame, little-endian, 40 bytes; a newer version may append fields, which are ignored:
//!
//! ```text
//! 0      4        6         8        12      16     24            32       40
//! "kvdh" version  reserved  cluster  epoch   node   boot counter  boot id
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::identity::ClusterId;

const MAGIC: [u8; 4] = *b"kvdh";
const HELLO_BYTES: usize = 40;

/// What a node says of itself when a peer link is made.
///
/// `(boot_counter, boot_id)` is the **incarnation**: the counter grows durably with each start, the id is drawn
/// anew. A lower counter, or the same with another id, is an older or copied directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster; must equal the one in the certificate.
    pub cluster: ClusterId,
    /// The node id; must equal the one in the certificate.
    pub node: u64,
    /// Starts of this node, durably counted.
    pub boot_counter: u64,
    /// Random, drawn at each start.
    pub boot_id: u64,
    /// Fences a forced recovery.
    pub cluster_epoch: u32,
    /// Highest protocol version this node speaks.
    pub version: u16,
}

/// A hello frame that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Shorter than the first version.
    #[error("hello of {bytes} bytes, at least {HELLO_BYTES} expected")]
    Short {
        /// Bytes found.
        bytes: usize,
    },
    /// Not a hello frame.
    #[error("hello starts with {found:02x?}")]
    Magic {
        /// Bytes found where the magic was expected.
        found: [u8; 4],
    },
}

impl Hello {
    /// The pair that orders the starts of one node.
    #[must_use]
    pub fn incarnation(&self) -> (u64, u64) {
        (self.boot_counter, self.boot_id)
    }

    /// The frame that is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[8..12].copy_from_slice(&self.cluster.0.to_le_bytes());
        out[12..16].copy_from_slice(&self.cluster_epoch.to_le_bytes());
        out[16..24].copy_from_slice(&self.node.to_le_bytes());
        out[24..32].copy_from_slice(&self.boot_counter.to_le_bytes());
        out[32..40].copy_from_slice(&self.boot_id.to_le_bytes());
        out
    }

    /// Reads a frame made by [`encode`](Hello::encode) of this or a newer version.
    ///
    /// # Errors
    ///
    /// The frame is too short or something else.
    pub fn decode(frame: &[u8]) -> Result<Hello, HelloError> {
        let Some(frame) = frame.first_chunk::<HELLO_BYTES>() else {
            return Err(HelloError::Short { bytes: frame.len() });
        };
        let found = bytes_at::<4>(frame, 0);
        if found != MAGIC {
            return Err(HelloError::Magic { found });
        }
        Ok(Hello {
            version: u16::from_le_bytes(bytes_at(frame, 4)),
            cluster: ClusterId(u32::from_le_bytes(bytes_at(frame, 8))),
            cluster_epoch: u32::from_le_bytes(bytes_at(frame, 12)),
            node: u64::from_le_bytes(bytes_at(frame, 16)),
            boot_counter: u64::from_le_bytes(bytes_at(frame, 24)),
            boot_id: u64::from_le_bytes(bytes_at(frame, 32)),
        })
    }
}

fn bytes_at<const N: usize>(frame: &[u8; HELLO_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&frame[at..at + N]);
    out
}

/// Decides, before any message of a link is delivered, whether its other side may take part.
///
/// Asked once for each peer connection, on both sides, after the certificate was checked and after the hello was
/// found to agree with it. The implementation remembers the highest incarnation of each member durably; it may
/// therefore take its time; the future is dropped when the handshake timeout is over.
pub trait Admission: Send + Sync + 'static {
    /// Admits or refuses the node that sent `hello`.
    fn admit<'a>(
        &'a self,
        hello: &'a Hello,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

    /// What to tell a node of this cluster that is not among the peers: that it was removed, if that is so, since it
    /// may never learn of it otherwise.
    fn refuse_stranger(&self, node: u64) -> Refusal {
        let _ = node;
        Refusal::UnknownMember
    }
}

/// Admits every peer that is configured and was not seen with a newer incarnation by this process.
///
/// For tests and for applications without durable state of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit<'a>(
        &'a self,
        _: &'a Hello,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Why a peer or a client is not served. Travels as the close code of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Certificate or hello of another cluster.
    WrongCluster,
    /// Not a member, as far as the refusing side knows.
    UnknownMember,
    /// An older or copied directory: a newer incarnation, `seen`, has been met.
    StaleIncarnation {
        /// Boot counter and boot id that were seen.
        seen: (u64, u64),
    },
    /// Another cluster epoch: one side went through a forced recovery without the other.
    WrongEpoch,
    /// No protocol version in common.
    WrongVersion,
    /// Was a member once.
    Removed,
    /// A client certificate on the peer protocol, or a node certificate on the client protocol.
    WrongRole,
    /// The certificate belongs to another node than was dialled, or the hello differs from the certificate.
    WrongIdentity,
    /// On the deny list.
    Denied,
    /// Too many connections, in all or with this identity.
    TooManyConnections,
}

/// Close codes below this are ours but not refusals, see [`close_code`].
const REFUSAL_CODES_FROM: u64 = 0x10;

impl Refusal {
    /// The code of the connection close. Append only: older nodes read them.
    pub(crate) fn code(self) -> u32 {
        match self {
            Refusal::WrongCluster => 0x10,
            Refusal::UnknownMember => 0x11,
            Refusal::StaleIncarnation { .. } => 0x12,
            Refusal::WrongEpoch => 0x13,
            Refusal::WrongVersion => 0x14,
            Refusal::Removed => 0x15,
            Refusal::WrongRole => 0x16,
            Refusal::WrongIdentity => 0x17,
            Refusal::Denied => 0x18,
            Refusal::TooManyConnections => 0x19,
        }
    }

    /// Reads code and reason of a connection close. `None`: not a refusal, or one of a newer version.
    pub(crate) fn from_close(code: u64, reason: &[u8]) -> Option<Refusal> {
        Some(match code {
            0x10 => Refusal::WrongCluster,
            0x11 => Refusal::UnknownMember,
            0x12 => Refusal::StaleIncarnation {
                seen: parse_seen(reason)?,
            },
            0x13 => Refusal::WrongEpoch,
            0x14 => Refusal::WrongVersion,
            0x15 => Refusal::Removed,
            0x16 => Refusal::WrongRole,
            0x17 => Refusal::WrongIdentity,
            0x18 => Refusal::Denied,
            0x19 => Refusal::TooManyConnections,
            REFUSAL_CODES_FROM.. | 0..REFUSAL_CODES_FROM => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::WrongCluster => f.write_str("wrong cluster"),
            Refusal::UnknownMember => f.write_str("not a known member"),
            // `parse_seen` reads the two numbers back: they stay the last words.
            Refusal::StaleIncarnation {
                seen: (counter, id),
            } => {
                write!(
                    f,
                    "older or copied directory, newest incarnation seen {counter} {id:016x}"
                )
            }
            Refusal::WrongEpoch => f.write_str("wrong cluster epoch"),
            Refusal::WrongVersion => f.write_str("no common protocol version"),
            Refusal::Removed => f.write_str("removed from the cluster"),
            Refusal::WrongRole => f.write_str("certificate of the wrong role for this protocol"),
            Refusal::WrongIdentity => f.write_str("certificate of another node"),
            Refusal::Denied => f.write_str("on the deny list"),
            Refusal::TooManyConnections => f.write_str("too many connections"),
        }
    }
}

impl std::error::Error for Refusal {}

fn parse_seen(reason: &[u8]) -> Option<(u64, u64)> {
    let reason = std::str::from_utf8(reason).ok()?;
    let mut words = reason.rsplit(' ');
    let (id, counter) = (words.next()?, words.next()?);
    Some((counter.parse().ok()?, u64::from_str_radix(id, 16).ok()?))
}

/// Close codes that are no refusals.
pub(crate) mod close_code {
    /// Closed on purpose.
    pub(crate) const DONE: u32 = 0;
    /// The other side broke the protocol.
    pub(crate) const PROTOCOL: u32 = 1;
    /// A newer connection between the same two nodes took over.
    pub(crate) const REPLACED: u32 = 2;
    /// Thank you for knocking: we dial you now.
    pub(crate) const KNOCKED: u32 = 3;
    /// The hello did not arrive, or admission took too long.
    pub(crate) const HANDSHAKE_TIMEOUT: u32 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId(0xc0ff_ee42),
            node: 0x0102_0304_0506_0708,
            boot_counter: 9,
            boot_id: 0xa1a2_a3a4_a5a6_a7a8,
            cluster_epoch: 3,
            version: 1,
        }
    }

    #[test]
    fn hello_has_these_bytes_forever() {
        let golden = [
            b'k', b'v', b'd', b'h', 1, 0, 0, 0, 0x42, 0xee, 0xff, 0xc0, 3, 0, 0, 0, 8, 7, 6, 5, 4,
            3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0xa8, 0xa7, 0xa6, 0xa5, 0xa4, 0xa3, 0xa2, 0xa1,
        ];
        assert_eq!(hello().encode(), golden);
    }

    #[test]
    fn hello_with_fields_of_a_newer_version_is_understood() {
        let mut frame = hello().encode().to_vec();
        frame.extend_from_slice(b"from the future");
        assert_eq!(Hello::decode(&frame), Ok(hello()));
    }

    #[test]
    fn every_refusal_survives_the_connection_close() {
        let all = [
            Refusal::WrongCluster,
            Refusal::UnknownMember,
            Refusal::StaleIncarnation {
                seen: (u64::MAX, 0x12),
            },
            Refusal::WrongEpoch,
            Refusal::WrongVersion,
            Refusal::Removed,
            Refusal::WrongRole,
            Refusal::WrongIdentity,
            Refusal::Denied,
            Refusal::TooManyConnections,
        ];
        for refusal in all {
            let reason = refusal.to_string();
            assert_eq!(
                Refusal::from_close(u64::from(refusal.code()), reason.as_bytes()),
                Some(refusal)
            );
        }
        assert_eq!(
            Refusal::from_close(u64::from(close_code::REPLACED), b""),
            None
        );
    }

    proptest! {
        /// Case 62: arbitrary bytes never panic, and what decodes encodes to the same bytes.
        #[test]
        fn hello_decoder_is_total(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(hello) = Hello::decode(&frame) {
                prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }

        #[test]
        fn close_reasons_are_read_without_panic(code in any::<u64>(), reason in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Refusal::from_close(code, &reason);
        }
    }
}
