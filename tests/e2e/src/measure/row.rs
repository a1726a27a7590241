use super::figures::median;

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Peak of the operator's largest pod.
    OperatorMemory,
    /// The same, of what its processes have in memory.
    OperatorResident,
    /// Peaks of all pods that the chart installs, added up.
    InstalledMemory,
    /// Peak of one Service's proxy: the median of all.
    ProxyMemory,
    /// The same, of what its processes have in memory.
    ProxyResident,
    /// Peak of the largest proxy.
    LargestProxyMemory,
    /// Peak of a node while nobody uses it: the larger of two.
    IdleNodeMemory,
    /// The same, of what the daemon has in memory.
    IdleNodeResident,
    /// Peak of a node while it moves TCP at full rate and right after: the larger of two.
    BusyNodeMemory,
    /// The same, of what the daemon has in memory.
    BusyNodeResident,
    /// First byte of half of the Services.
    MedianFirstByte,
    /// First byte of the last Service.
    LastFirstByte,
    /// Requests to the coordination server by operator and proxies.
    IdleCalls,
    /// Requests to the coordination server by the two nodes.
    IdleNodeCalls,
    /// Changes to Kubernetes' objects.
    IdleWrites,
    /// Processor time of operator and proxies.
    IdleProcessor,
    /// Image of the operator.
    OperatorImage,
    /// Image of a proxy.
    ProxyImage,
    /// TCP as fast as it goes.
    FullRate,
    /// Processor time of the sender's daemon at full rate.
    FullSender,
    /// Processor time of the receiver's daemon at full rate.
    FullReceiver,
    /// TCP that is sent at a given rate.
    PacedRate,
    /// Processor time of the sender's daemon at that rate.
    PacedSender,
    /// Processor time of the receiver's daemon at that rate.
    PacedReceiver,
}

/// What our system is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most so much.
    AtMost(f64),
    /// At most as much as the stock system.
    NoMoreThanStock,
    /// At least as much as the stock system.
    NoLessThanStock,
}

/// Whether a target is reached.
///
/// The median of the rounds decides, whichever target it is; where a round says otherwise, that is said too: by how much two
/// runs of the same differ on this machine is told by nothing but the rounds themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// The median says whether it is, and a round says otherwise.
    RoundsDiffer {
        /// What the median says.
        met: bool,
    },
    /// One round has no spread to compare a difference with.
    OneRound,
}

/// All rows, in the order in which they are shown.
pub const ROWS: [Row; 24] = [
    Row::OperatorMemory,
    Row::OperatorResident,
    Row::InstalledMemory,
    Row::ProxyMemory,
    Row::ProxyResident,
    Row::LargestProxyMemory,
    Row::IdleNodeMemory,
    Row::IdleNodeResident,
    Row::BusyNodeMemory,
    Row::BusyNodeResident,
    Row::MedianFirstByte,
    Row::LastFirstByte,
    Row::IdleCalls,
    Row::IdleNodeCalls,
    Row::IdleWrites,
    Row::IdleProcessor,
    Row::OperatorImage,
    Row::ProxyImage,
    Row::FullRate,
    Row::FullSender,
    Row::FullReceiver,
    Row::PacedRate,
    Row::PacedSender,
    Row::PacedReceiver,
];

impl Row {
    /// What people read, and its unit.
    pub fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::OperatorMemory => ("operator, its largest pod", "MB"),
            Self::OperatorResident => ("  the same, resident", "MB"),
            Self::InstalledMemory => ("operator, all pods of its chart", "MB"),
            Self::ProxyMemory => ("exposed Service, its proxy pod", "MB"),
            Self::ProxyResident => ("  the same, resident", "MB"),
            Self::LargestProxyMemory => ("exposed Service, the largest proxy pod", "MB"),
            Self::IdleNodeMemory => ("node, idle", "MB"),
            Self::IdleNodeResident => ("  the same, resident", "MB"),
            Self::BusyNodeMemory => ("node, sending or receiving TCP", "MB"),
            Self::BusyNodeResident => ("  the same, resident", "MB"),
            Self::MedianFirstByte => ("Services applied to first byte, p50", "s"),
            Self::LastFirstByte => ("Services applied to first byte, last", "s"),
            Self::IdleCalls => ("calls to control, operator and proxies", "/min"),
            Self::IdleNodeCalls => ("calls to control, two nodes", "/min"),
            Self::IdleWrites => ("writes to Kubernetes", "/min"),
            Self::IdleProcessor => ("processor, operator and proxies", "s/min"),
            Self::OperatorImage => ("image of the operator", "MB"),
            Self::ProxyImage => ("image of a proxy", "MB"),
            Self::FullRate => ("TCP at full rate", "Gb/s"),
            Self::FullSender => ("TCP at full rate, processor of the sender", "s/GB"),
            Self::FullReceiver => ("TCP at full rate, processor of the receiver", "s/GB"),
            Self::PacedRate => ("TCP paced at 500 Mb/s", "Gb/s"),
            Self::PacedSender => ("TCP paced, processor of the sender", "s/GB"),
            Self::PacedReceiver => ("TCP paced, processor of the receiver", "s/GB"),
        }
    }

    /// What programs read.
    pub fn name(self) -> &'static str {
        match self {
            Self::OperatorMemory => "operator_memory_mb",
            Self::OperatorResident => "operator_resident_mb",
            Self::InstalledMemory => "installed_memory_mb",
            Self::ProxyMemory => "proxy_memory_mb",
            Self::ProxyResident => "proxy_resident_mb",
            Self::LargestProxyMemory => "largest_proxy_memory_mb",
            Self::IdleNodeMemory => "idle_node_memory_mb",
            Self::IdleNodeResident => "idle_node_resident_mb",
            Self::BusyNodeMemory => "busy_node_memory_mb",
            Self::BusyNodeResident => "busy_node_resident_mb",
            Self::MedianFirstByte => "first_byte_p50_s",
            Self::LastFirstByte => "first_byte_last_s",
            Self::IdleCalls => "idle_control_calls_per_minute",
            Self::IdleNodeCalls => "idle_node_control_calls_per_minute",
            Self::IdleWrites => "idle_kubernetes_writes_per_minute",
            Self::IdleProcessor => "idle_processor_s_per_minute",
            Self::OperatorImage => "operator_image_mb",
            Self::ProxyImage => "proxy_image_mb",
            Self::FullRate => "tcp_full_gb_s",
            Self::FullSender => "tcp_full_sender_s_per_gb",
            Self::FullReceiver => "tcp_full_receiver_s_per_gb",
            Self::PacedRate => "tcp_paced_gb_s",
            Self::PacedSender => "tcp_paced_sender_s_per_gb",
            Self::PacedReceiver => "tcp_paced_receiver_s_per_gb",
        }
    }

    /// What our system is to reach in this row, if anything.
    pub fn target(self) -> Option<Target> {
        match self {
            Self::OperatorMemory | Self::OperatorResident => Some(Target::AtMost(40.0)),
            Self::ProxyMemory | Self::ProxyResident => Some(Target::AtMost(20.0)),
            Self::MedianFirstByte | Self::LastFirstByte => Some(Target::NoMoreThanStock),
            Self::FullRate | Self::PacedRate => Some(Target::NoLessThanStock),
            Self::FullSender | Self::FullReceiver | Self::PacedSender | Self::PacedReceiver => {
                Some(Target::NoMoreThanStock)
            }
            _ => None,
        }
    }
}

impl Target {
    /// Whether our system reaches it, where the stock system is known as far as that matters: `own` are our values, and
    /// `ratios` ours to stock's, one a round in which both were measured.
    pub fn verdict(self, own: &[f64], ratios: &[f64]) -> Option<Verdict> {
        match (self, ratios) {
            (Self::AtMost(most), _) => judged(own, |value| value <= most),
            (_, [_]) => Some(Verdict::OneRound),
            (Self::NoMoreThanStock, _) => judged(ratios, |ratio| ratio <= 1.0),
            (Self::NoLessThanStock, _) => judged(ratios, |ratio| ratio >= 1.0),
        }
    }
}

/// What the median says, and whether each round says the same.
fn judged(rounds: &[f64], reached: impl Fn(f64) -> bool) -> Option<Verdict> {
    let met = reached(median(rounds.iter().copied())?);
    Some(match (met, rounds.iter().all(|round| reached(*round) == met)) {
        (true, true) => Verdict::Met,
        (false, true) => Verdict::Missed,
        (met, false) => Verdict::RoundsDiffer { met },
    })
}

impl Verdict {
    /// What programs read: nothing where it is open.
    pub fn is_met(self) -> Option<bool> {
        match self {
            Self::Met => Some(true),
            Self::Missed => Some(false),
            Self::RoundsDiffer { met } => Some(met),
            Self::OneRound => None,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::RoundsDiffer { met: true } => "met, rounds differ",
            Self::RoundsDiffer { met: false } => "missed, rounds differ",
            Self::OneRound => "one round: no spread",
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(formatter, "≤ {most}"),
            Self::NoMoreThanStock => formatter.write_str("≤ stock"),
            Self::NoLessThanStock => formatter.write_str("≥ stock"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_needs_the_stock_system_is_open_without_it() {
        assert_eq!(Target::NoMoreThanStock.verdict(&[1.0], &[]), None);
        assert_eq!(Target::AtMost(40.0).verdict(&[41.0], &[]), Some(Verdict::Missed));
        assert_eq!(Target::AtMost(40.0).verdict(&[39.0], &[0.5]), Some(Verdict::Met));
        assert_eq!(Target::AtMost(40.0).verdict(&[], &[]), None);
    }

    #[test]
    fn the_median_decides_and_rounds_that_say_otherwise_are_told() {
        let less = |ratios: &[f64]| Target::NoMoreThanStock.verdict(&[], ratios).unwrap();
        assert_eq!(less(&[0.7, 0.8, 1.0]), Verdict::Met);
        assert_eq!(less(&[0.9, 0.95, 1.1]), Verdict::RoundsDiffer { met: true });
        assert_eq!(less(&[0.9, 1.05, 1.1]), Verdict::RoundsDiffer { met: false });
        assert_eq!(less(&[1.05, 1.1]), Verdict::Missed);
        let at_most = |own: &[f64]| Target::AtMost(40.0).verdict(own, &[]).unwrap();
        assert_eq!(at_most(&[39.0, 39.5, 41.0]), Verdict::RoundsDiffer { met: true });
        assert_eq!(Verdict::RoundsDiffer { met: true }.to_string(), "met, rounds differ");
    }

    #[test]
    fn one_round_at_the_stock_systems_rate_does_not_make_ours_as_fast() {
        let more = |ratios: &[f64]| Target::NoLessThanStock.verdict(&[], ratios).unwrap();
        assert_eq!(more(&[0.93, 0.95, 1.0]), Verdict::RoundsDiffer { met: false });
        assert_eq!(more(&[0.93, 1.02, 1.05]), Verdict::RoundsDiffer { met: true });
        assert_eq!(more(&[0.97, 0.98, 0.99]), Verdict::Missed);
        assert_eq!(more(&[1.0, 1.1]), Verdict::Met);
    }

    #[test]
    fn one_round_has_no_spread_and_no_verdict() {
        assert_eq!(Target::NoLessThanStock.verdict(&[], &[0.5]), Some(Verdict::OneRound));
        assert_eq!(Target::NoMoreThanStock.verdict(&[], &[0.5]).and_then(Verdict::is_met), None);
    }

    #[test]
    fn names_for_programs_are_unique() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
