//! Numbers out of many measurements: medians of rounds, percentiles of times; and the memory that is in use.

use std::time::Duration;

/// Times that something took.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    /// Takes one more.
    pub(super) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The times at these shares of all, in thousandths: 500 is the median, 990 the 99th percentile, 1000
    /// the longest. Each is a time that was measured (nearest rank); zero where nothing was.
    pub(super) fn at<const N: usize>(mut self, thousandths: [usize; N]) -> [Duration; N] {
        self.0.sort_unstable();
        thousandths.map(|it| {
            let rank = (self.0.len() * it).div_ceil(1_000).max(1);
            self.0.get(rank - 1).copied().unwrap_or_default()
        })
    }
}

impl Extend<Duration> for Samples {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, times: I) {
        self.0.extend(times);
    }
}

/// The middle one, or the mean of the two in the middle; zero where there is none.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// How many in a second.
#[allow(clippy::cast_precision_loss, reason = "nobody counts beyond 2^52 here")]
pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// In milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// What this process holds in memory, where the system tells.
pub(super) fn resident_mib() -> Option<f64> {
    memory_mib("VmRSS:")
}

/// The most that this process held in memory since [`forget_peak`], where the system tells.
pub(super) fn peak_mib() -> Option<f64> {
    memory_mib("VmHWM:")
}

/// Begins anew with what this process holds in memory at the most.
pub(super) fn forget_peak() {
    // Where there is no such file, nobody is told of a peak either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn memory_mib(what: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix(what))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: impl IntoIterator<Item = u64>, thousandths: usize) -> u128 {
        let mut samples = Samples::default();
        samples.extend(millis.into_iter().map(Duration::from_millis));
        samples.at([thousandths])[0].as_millis()
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        for (thousandths, expected) in
            [(0, 1), (1, 1), (500, 50), (505, 51), (900, 90), (990, 99), (1000, 100)]
        {
            assert_eq!(at((1..=100).rev(), thousandths), expected, "{thousandths}");
        }
        assert_eq!(at([7], 500), 7);
        assert_eq!(at([7], 990), 7);
        assert_eq!(at([1, 9], 500), 1);
        assert_eq!(at([1, 9], 501), 9);
        assert_eq!(at([], 990), 0);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (numbers, expected) in
            [(&[][..], 0.0), (&[3.0], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)]
        {
            assert!((median(numbers) - expected).abs() < 1e-12, "{numbers:?}");
        }
    }

    #[test]
    fn a_rate_is_finite_even_for_no_time() {
        assert!((per_second(50, Duration::from_millis(500)) - 100.0).abs() < 1e-9);
        assert!(per_second(0, Duration::ZERO).is_finite());
    }
}
