//! How the own disk does, as the driver reports it, whether the driver takes this node for fit to lead at all, and whether this
//! node stands for election.
//!
//! A leader writes its log while the followers write theirs, so a slow disk under it does not stop
//! commits; but it cannot count itself, each election it takes part in waits for its vote, and with
//! one more node down everything waits for this disk. So it hands over, see `role/succession.rs`,
//! and leaves the next elections to others until its disk has proved itself. A node that is unfit for another reason, which
//! only the driver knows, is treated alike: its log and its votes are as good as ever, but somebody else should lead.

/// The age of the oldest unfinished sync, and what it led to.
///
/// ```text
///                 gave up leading because of its disk, or is unfit
///    stands ------------------------------------------> silent
///      ^                                                   |
///      |  10 healthy election timeouts in a row            |
///      +---- or 3 election timeouts without any leader ----+
///            or leads again, because somebody asked
/// ```
#[derive(Debug, Default)]
pub(crate) struct DiskHealth {
    age_ticks: u32,
    /// The driver wants somebody else to lead, whatever the disk does.
    is_unfit: bool,
    silence: Option<Silence>,
}

/// A time in which this node leaves elections to others.
#[derive(Debug, Default)]
struct Silence {
    /// Ticks since the disk was last found unhealthy.
    healthy_ticks: u32,
}

/// Why a silent node stands for election again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SilenceEnd {
    DiskIsHealthy,
    NobodyLeads,
}

/// A disk that hangs now and then looks healthy in between: each change of leadership costs more
/// than waiting some seconds to be sure.
pub(crate) const HEALTHY_ELECTION_TIMEOUTS: u32 = 10;

/// Others had the time for two or three elections. If nobody won, this node may be the only one
/// that can: a slow leader is better than none.
const LEADERLESS_ELECTION_TIMEOUTS: u32 = 3;

/// Whether a disk whose oldest unfinished sync has this age is fit to lead with. Well below the age
/// at which a leader gives up, so that nobody hands over to the next who will.
pub(crate) fn is_healthy(age_ticks: u32, election_timeout_ticks: u32) -> bool {
    age_ticks <= election_timeout_ticks / 2
}

impl DiskHealth {
    pub(crate) fn report(&mut self, age_ticks: u32) {
        self.age_ticks = age_ticks;
    }

    pub(crate) fn report_unfit(&mut self, is_unfit: bool) {
        self.is_unfit = is_unfit;
    }

    pub(crate) fn is_unfit(&self) -> bool {
        self.is_unfit
    }

    pub(crate) fn age_ticks(&self) -> u32 {
        self.age_ticks
    }

    /// What the leader is told, so that it does not hand over to this node.
    pub(crate) fn told_age_ticks(&self) -> u32 {
        if self.is_unfit {
            u32::MAX
        } else {
            self.age_ticks
        }
    }

    pub(crate) fn is_healthy(&self, election_timeout_ticks: u32) -> bool {
        !self.is_unfit && is_healthy(self.age_ticks, election_timeout_ticks)
    }

    /// Whether a leader should look for somebody else.
    pub(crate) fn is_slow(&self, election_timeout_ticks: u32) -> bool {
        self.is_unfit || self.age_ticks > election_timeout_ticks
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silence.is_some()
    }

    pub(crate) fn fall_silent(&mut self) {
        self.silence = Some(Silence::default());
    }

    /// This node leads: it was asked to, or nobody else could.
    pub(crate) fn end_silence(&mut self) {
        self.silence = None;
    }

    /// Counts a tick, and tells when the silence ends.
    pub(crate) fn tick(
        &mut self,
        election_timeout_ticks: u32,
        leaderless_ticks: u32,
    ) -> Option<SilenceEnd> {
        // A leader, of which this number is 0, ends its silence when it wins: it seeks relief instead.
        if self.is_unfit && (1..election_timeout_ticks).contains(&leaderless_ticks) {
            self.silence.get_or_insert_default();
        }
        let is_healthy = self.is_healthy(election_timeout_ticks);
        let silence = self.silence.as_mut()?;
        silence.healthy_ticks = if is_healthy {
            silence.healthy_ticks.saturating_add(1)
        } else {
            0
        };
        let lasted = |ticks: u32, timeouts: u32| {
            u64::from(ticks) >= u64::from(timeouts) * u64::from(election_timeout_ticks)
        };
        let end = if lasted(silence.healthy_ticks, HEALTHY_ELECTION_TIMEOUTS) {
            SilenceEnd::DiskIsHealthy
        } else if lasted(leaderless_ticks, LEADERLESS_ELECTION_TIMEOUTS) {
            SilenceEnd::NobodyLeads
        } else {
            return None;
        };
        self.silence = None;
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u32 = 10;

    fn silent() -> DiskHealth {
        let mut disk = DiskHealth::default();
        disk.fall_silent();
        disk
    }

    #[test]
    fn disk_is_slow_after_an_election_timeout_and_healthy_below_half_of_one() {
        let at = |age| {
            let mut disk = DiskHealth::default();
            disk.report(age);
            (disk.is_healthy(TIMEOUT), disk.is_slow(TIMEOUT))
        };
        assert_eq!(at(5), (true, false));
        assert_eq!(at(6), (false, false));
        assert_eq!(at(10), (false, false));
        assert_eq!(at(11), (false, true));
    }

    #[test]
    fn silence_ends_after_ten_healthy_election_timeouts_in_a_row() {
        let mut disk = silent();
        (0..99).for_each(|_| assert_eq!(disk.tick(TIMEOUT, 0), None));
        disk.report(6);
        assert_eq!(disk.tick(TIMEOUT, 0), None);
        disk.report(5);
        (0..99).for_each(|_| assert_eq!(disk.tick(TIMEOUT, 0), None));
        assert_eq!(disk.tick(TIMEOUT, 0), Some(SilenceEnd::DiskIsHealthy));
        assert!(!disk.is_silent());
    }

    #[test]
    fn unfit_node_is_silent_for_as_long_as_somebody_leads() {
        let mut disk = DiskHealth::default();
        disk.report_unfit(true);
        assert!(disk.is_slow(TIMEOUT));
        assert!(!disk.is_healthy(TIMEOUT));
        assert_eq!(disk.told_age_ticks(), u32::MAX);
        (0..200).for_each(|_| assert_eq!(disk.tick(TIMEOUT, 1), None));
        assert!(disk.is_silent());
        assert_eq!(disk.tick(TIMEOUT, 30), Some(SilenceEnd::NobodyLeads));
        assert_eq!(disk.tick(TIMEOUT, 31), None);
        assert!(!disk.is_silent(), "it is the only one that can lead");
        disk.tick(TIMEOUT, 1);
        assert!(disk.is_silent(), "somebody leads again");
        disk.report_unfit(false);
        (0..99).for_each(|_| assert_eq!(disk.tick(TIMEOUT, 1), None));
        assert_eq!(disk.tick(TIMEOUT, 1), Some(SilenceEnd::DiskIsHealthy));
    }

    #[test]
    fn silence_ends_after_three_election_timeouts_without_a_leader_whatever_the_disk_does() {
        let mut disk = silent();
        disk.report(1000);
        assert_eq!(disk.tick(TIMEOUT, 29), None);
        assert_eq!(disk.tick(TIMEOUT, 30), Some(SilenceEnd::NobodyLeads));
    }
}
