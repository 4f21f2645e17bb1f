//! What can go wrong in a world, each with its own end: a schedule stays valid when any line of it is taken out.

use std::fmt;
use std::str::FromStr;

use super::Place;

/// Something that happens to the world. Times are in milliseconds of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The machine loses power and comes back: what was not synced is mixed.
    PowerCut {
        /// Which.
        node: Place,
        /// How long it stays away.
        down_ms: u64,
    },
    /// As [`Fault::PowerCut`], at a storage call to come: it happens in part or not at all.
    PowerCutAtCall {
        /// Which.
        node: Place,
        /// How many storage calls from now; 1 is the next.
        calls: u64,
        /// How long it stays away.
        down_ms: u64,
    },
    /// All machines lose power at once.
    Blackout {
        /// How long they stay away.
        down_ms: u64,
    },
    /// As [`Fault::Blackout`], at a storage call of one node to come.
    BlackoutAtCall {
        /// Whose calls count.
        node: Place,
        /// How many storage calls from now; 1 is the next.
        calls: u64,
        /// How long all stay away.
        down_ms: u64,
    },
    /// The process dies; what it wrote is in the page cache.
    Kill {
        /// Which.
        node: Place,
        /// How long it stays away.
        down_ms: u64,
    },
    /// The process is told to stop, and ends in good order when it has nothing left to do.
    Stop {
        /// Which.
        node: Place,
        /// How long it stays away from then on.
        down_ms: u64,
    },
    /// The process stands still, then goes on as if nothing had been.
    Pause {
        /// Which.
        node: Place,
        /// How long.
        ms: u64,
    },
    /// Packets in one direction are lost.
    Cut {
        /// The sender.
        from: Place,
        /// The receiver.
        to: Place,
        /// How long.
        ms: u64,
    },
    /// Packets from and to a node are lost.
    Isolate {
        /// Which.
        node: Place,
        /// How long.
        ms: u64,
    },
    /// Packets between two groups are lost.
    Split {
        /// One group, a bit for each place; all others are the other.
        side: u32,
        /// How long.
        ms: u64,
    },
    /// Packets from and to a node wait, and arrive together at the end.
    Clog {
        /// Which.
        node: Place,
        /// How long.
        ms: u64,
    },
    /// Packets in one direction take longer.
    SlowLink {
        /// The sender.
        from: Place,
        /// The receiver.
        to: Place,
        /// How much longer.
        delay_ms: u64,
        /// How long.
        ms: u64,
    },
    /// More packets get lost.
    Loss {
        /// How many of a thousand.
        permille: u32,
        /// How long.
        ms: u64,
    },
    /// Each sync takes longer.
    SlowDisk {
        /// Which.
        node: Place,
        /// How much longer.
        sync_ms: u64,
        /// How long.
        ms: u64,
    },
    /// The next sync fails: the cache keeps the new bytes as clean, the disk the old ones.
    SyncError {
        /// Which.
        node: Place,
        /// How long the process, which must end, stays away.
        down_ms: u64,
    },
    /// The disk takes nothing more.
    Full {
        /// Which.
        node: Place,
        /// How long.
        ms: u64,
    },
    /// The clock runs at another speed.
    ClockRate {
        /// Which.
        node: Place,
        /// In percent of the right one.
        percent: u64,
        /// How long.
        ms: u64,
    },
    /// The clock leaps ahead: the node believes that it slept.
    ClockJump {
        /// Which.
        node: Place,
        /// How far.
        ms: u64,
    },
    /// The leader is asked to hand over.
    Transfer {
        /// To whom.
        to: Place,
    },
    /// A node is asked for a snapshot, and to discard the log below it.
    DiscardLog {
        /// Which.
        node: Place,
    },
    /// Records of a log rot while the process, which was killed, is down. Only those whose index, divided by the number of
    /// machines, leaves this node's place: so every entry stays intact on all machines but one. Nothing rots while there is
    /// no leader under a configuration of several voters, nor in front of entries that no other machine holds, unless those are
    /// alone at that index as well.
    Rot {
        /// Which.
        node: Place,
        /// How many records at most.
        records: u64,
        /// How long the process stays away.
        down_ms: u64,
    },
    /// The leader is asked to take a machine in that was never a member.
    Add {
        /// Which.
        node: Place,
    },
    /// The leader is asked to remove a member.
    Remove {
        /// Which.
        node: Place,
    },
    /// The leader is asked to put a machine in the place of a member.
    Replace {
        /// The member that leaves.
        old: Place,
        /// The machine that joins.
        new: Place,
    },
    /// The leader is asked for several changes of members in one step.
    Members {
        /// The machines that join, a bit for each place; none of them was ever a member.
        add: u32,
        /// The members that leave, a bit for each place.
        remove: u32,
    },
    /// The answers to all clients get lost; the requests do not.
    LoseAnswers {
        /// How long.
        ms: u64,
    },
}

impl Fault {
    /// When its effect is over, counted from its beginning.
    pub fn ms(&self) -> u64 {
        match *self {
            Fault::PowerCut { down_ms, .. }
            | Fault::PowerCutAtCall { down_ms, .. }
            | Fault::Blackout { down_ms }
            | Fault::BlackoutAtCall { down_ms, .. }
            | Fault::Kill { down_ms, .. }
            | Fault::Stop { down_ms, .. }
            | Fault::SyncError { down_ms, .. }
            | Fault::Rot { down_ms, .. } => down_ms,
            Fault::Pause { ms, .. }
            | Fault::Cut { ms, .. }
            | Fault::Isolate { ms, .. }
            | Fault::Split { ms, .. }
            | Fault::Clog { ms, .. }
            | Fault::SlowLink { ms, .. }
            | Fault::Loss { ms, .. }
            | Fault::SlowDisk { ms, .. }
            | Fault::Full { ms, .. }
            | Fault::ClockRate { ms, .. }
            | Fault::LoseAnswers { ms } => ms,
            Fault::ClockJump { .. }
            | Fault::Transfer { .. }
            | Fault::DiscardLog { .. }
            | Fault::Add { .. }
            | Fault::Remove { .. }
            | Fault::Replace { .. }
            | Fault::Members { .. } => 0,
        }
    }

    /// The machine whose process or disk it hits, if it is one.
    pub fn process(&self) -> Option<Place> {
        match *self {
            Fault::PowerCut { node, .. }
            | Fault::PowerCutAtCall { node, .. }
            | Fault::BlackoutAtCall { node, .. }
            | Fault::Kill { node, .. }
            | Fault::Stop { node, .. }
            | Fault::Pause { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::SyncError { node, .. }
            | Fault::Full { node, .. }
            | Fault::ClockRate { node, .. }
            | Fault::ClockJump { node, .. }
            | Fault::Rot { node, .. } => Some(node),
            Fault::Blackout { .. }
            | Fault::Cut { .. }
            | Fault::Isolate { .. }
            | Fault::Split { .. }
            | Fault::Clog { .. }
            | Fault::SlowLink { .. }
            | Fault::Loss { .. }
            | Fault::Transfer { .. }
            | Fault::DiscardLog { .. }
            | Fault::Add { .. }
            | Fault::Remove { .. }
            | Fault::Replace { .. }
            | Fault::Members { .. }
            | Fault::LoseAnswers { .. } => None,
        }
    }

    /// All machines that it names.
    pub fn nodes(&self) -> Vec<Place> {
        match *self {
            Fault::PowerCut { node, .. }
            | Fault::PowerCutAtCall { node, .. }
            | Fault::BlackoutAtCall { node, .. }
            | Fault::Kill { node, .. }
            | Fault::Stop { node, .. }
            | Fault::Pause { node, .. }
            | Fault::Isolate { node, .. }
            | Fault::Clog { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::SyncError { node, .. }
            | Fault::Full { node, .. }
            | Fault::ClockRate { node, .. }
            | Fault::ClockJump { node, .. }
            | Fault::DiscardLog { node }
            | Fault::Rot { node, .. }
            | Fault::Add { node }
            | Fault::Remove { node } => vec![node],
            Fault::Replace { old, new } => vec![old, new],
            Fault::Cut { from, to, .. } | Fault::SlowLink { from, to, .. } => vec![from, to],
            Fault::Transfer { to } => vec![to],
            Fault::Split { side, .. } => places(side).collect(),
            Fault::Members { add, remove } => places(add | remove).collect(),
            Fault::Blackout { .. } | Fault::Loss { .. } | Fault::LoseAnswers { .. } => Vec::new(),
        }
    }
}

/// The places whose bits are set.
pub(super) fn places(bits: u32) -> impl Iterator<Item = Place> {
    (0..32).filter(move |place| bits >> place & 1 == 1)
}

/// Names of the places whose bits are set, each after a space and a sign.
fn signed(f: &mut fmt::Formatter<'_>, sign: char, bits: u32) -> fmt::Result {
    places(bits).try_for_each(|place| write!(f, " {sign}n{}", place + 1))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |place: Place| place + 1;
        match *self {
            Fault::PowerCut { node, down_ms } => write!(f, "power-cut n{} {down_ms}", n(node)),
            Fault::PowerCutAtCall {
                node,
                calls,
                down_ms,
            } => write!(f, "power-cut-at-call n{} {calls} {down_ms}", n(node)),
            Fault::Blackout { down_ms } => write!(f, "blackout {down_ms}"),
            Fault::BlackoutAtCall {
                node,
                calls,
                down_ms,
            } => write!(f, "blackout-at-call n{} {calls} {down_ms}", n(node)),
            Fault::Kill { node, down_ms } => write!(f, "kill n{} {down_ms}", n(node)),
            Fault::Stop { node, down_ms } => write!(f, "stop n{} {down_ms}", n(node)),
            Fault::Pause { node, ms } => write!(f, "pause n{} {ms}", n(node)),
            Fault::Cut { from, to, ms } => write!(f, "cut n{} n{} {ms}", n(from), n(to)),
            Fault::Isolate { node, ms } => write!(f, "isolate n{} {ms}", n(node)),
            Fault::Split { side, ms } => write!(f, "split {side:b} {ms}"),
            Fault::Clog { node, ms } => write!(f, "clog n{} {ms}", n(node)),
            Fault::SlowLink {
                from,
                to,
                delay_ms,
                ms,
            } => write!(f, "slow-link n{} n{} {delay_ms} {ms}", n(from), n(to)),
            Fault::Loss { permille, ms } => write!(f, "loss {permille} {ms}"),
            Fault::SlowDisk { node, sync_ms, ms } => {
                write!(f, "slow-disk n{} {sync_ms} {ms}", n(node))
            }
            Fault::SyncError { node, down_ms } => write!(f, "sync-error n{} {down_ms}", n(node)),
            Fault::Full { node, ms } => write!(f, "full n{} {ms}", n(node)),
            Fault::ClockRate { node, percent, ms } => {
                write!(f, "clock-rate n{} {percent} {ms}", n(node))
            }
            Fault::ClockJump { node, ms } => write!(f, "clock-jump n{} {ms}", n(node)),
            Fault::Transfer { to } => write!(f, "transfer n{}", n(to)),
            Fault::DiscardLog { node } => write!(f, "discard-log n{}", n(node)),
            Fault::Rot {
                node,
                records,
                down_ms,
            } => write!(f, "rot n{} {records} {down_ms}", n(node)),
            Fault::Add { node } => write!(f, "add n{}", n(node)),
            Fault::Remove { node } => write!(f, "remove n{}", n(node)),
            Fault::Replace { old, new } => write!(f, "replace n{} n{}", n(old), n(new)),
            Fault::Members { add, remove } => {
                f.write_str("members")?;
                signed(f, '+', add)?;
                signed(f, '-', remove)
            }
            Fault::LoseAnswers { ms } => write!(f, "lose-answers {ms}"),
        }
    }
}

/// A line that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fault: {0:?}")]
pub struct NotAFault(pub String);

/// The words of one line, taken from the left.
struct Words<'a>(std::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn number(&mut self) -> Option<u64> {
        self.word()?.parse().ok()
    }

    fn place(&mut self) -> Option<Place> {
        place(self.word()?)
    }
}

fn place(word: &str) -> Option<Place> {
    let number: usize = word.strip_prefix('n')?.parse().ok()?;
    number.checked_sub(1)
}

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(line: &str) -> Result<Fault, NotAFault> {
        let mut words = Words(line.split_ascii_whitespace());
        parse(&mut words)
            .filter(|_| words.word().is_none())
            .ok_or_else(|| NotAFault(line.into()))
    }
}

fn parse(words: &mut Words<'_>) -> Option<Fault> {
    let name = words.word()?;
    match name {
        "members" => parse_members(words),
        "blackout" | "loss" | "lose-answers" | "split" => parse_world(name, words),
        "cut" | "slow-link" | "transfer" | "replace" | "add" | "remove" => parse_link(name, words),
        _ => parse_node(name, words),
    }
}

/// Those that concern everybody.
fn parse_world(name: &str, words: &mut Words<'_>) -> Option<Fault> {
    Some(match name {
        "blackout" => Fault::Blackout {
            down_ms: words.number()?,
        },
        "loss" => Fault::Loss {
            permille: words.number()?.try_into().ok()?,
            ms: words.number()?,
        },
        "lose-answers" => Fault::LoseAnswers {
            ms: words.number()?,
        },
        _ => Fault::Split {
            side: u32::from_str_radix(words.word()?, 2).ok()?,
            ms: words.number()?,
        },
    })
}

/// One word or more, each a sign and a node.
fn parse_members(words: &mut Words<'_>) -> Option<Fault> {
    let (mut add, mut remove) = (0, 0);
    while let Some(word) = words.word() {
        let (bits, name) = match word.strip_prefix('+') {
            Some(name) => (&mut add, name),
            None => (&mut remove, word.strip_prefix('-')?),
        };
        *bits |= 1_u32.checked_shl(place(name)?.try_into().ok()?)?;
    }
    (add | remove != 0).then_some(Fault::Members { add, remove })
}

/// Those that begin with one or two nodes and may have nothing else.
fn parse_link(name: &str, words: &mut Words<'_>) -> Option<Fault> {
    let first = words.place()?;
    Some(match name {
        "cut" => Fault::Cut {
            from: first,
            to: words.place()?,
            ms: words.number()?,
        },
        "slow-link" => Fault::SlowLink {
            from: first,
            to: words.place()?,
            delay_ms: words.number()?,
            ms: words.number()?,
        },
        "replace" => Fault::Replace {
            old: first,
            new: words.place()?,
        },
        "add" => Fault::Add { node: first },
        "remove" => Fault::Remove { node: first },
        _ => Fault::Transfer { to: first },
    })
}

/// Those that concern one node.
fn parse_node(name: &str, words: &mut Words<'_>) -> Option<Fault> {
    let node = words.place()?;
    if name == "discard-log" {
        return Some(Fault::DiscardLog { node });
    }
    let first = words.number()?;
    Some(match name {
        "power-cut" => Fault::PowerCut {
            node,
            down_ms: first,
        },
        "power-cut-at-call" => Fault::PowerCutAtCall {
            node,
            calls: first,
            down_ms: words.number()?,
        },
        "blackout-at-call" => Fault::BlackoutAtCall {
            node,
            calls: first,
            down_ms: words.number()?,
        },
        "kill" => Fault::Kill {
            node,
            down_ms: first,
        },
        "stop" => Fault::Stop {
            node,
            down_ms: first,
        },
        "pause" => Fault::Pause { node, ms: first },
        "isolate" => Fault::Isolate { node, ms: first },
        "clog" => Fault::Clog { node, ms: first },
        "slow-disk" => Fault::SlowDisk {
            node,
            sync_ms: first,
            ms: words.number()?,
        },
        "sync-error" => Fault::SyncError {
            node,
            down_ms: first,
        },
        "rot" => Fault::Rot {
            node,
            records: first,
            down_ms: words.number()?,
        },
        "full" => Fault::Full { node, ms: first },
        "clock-rate" => Fault::ClockRate {
            node,
            percent: first,
            ms: words.number()?,
        },
        "clock-jump" => Fault::ClockJump { node, ms: first },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_are_only_written_by_hand_come_back_from_their_text() {
        let (add, remove) = (0b110_0000, 0b1);
        let faults = [
            (Fault::Members { add, remove }, "members +n6 +n7 -n1"),
            (
                Fault::Stop {
                    node: 1,
                    down_ms: 40,
                },
                "stop n2 40",
            ),
        ];
        for (fault, text) in faults {
            assert_eq!(fault.to_string(), text);
            assert_eq!(text.parse(), Ok(fault));
        }
        for text in [
            "members",
            "members n6",
            "members +n0",
            "members +n33",
            "stop n2",
        ] {
            assert_eq!(text.parse::<Fault>(), Err(NotAFault(text.into())));
        }
    }
}
