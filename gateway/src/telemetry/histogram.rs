//! A histogram of durations that takes no lock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Upper bounds of the buckets, in seconds. One more takes what is longer.
const BOUNDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How long things took to open. A clone counts in the same place.
///
/// It stands for the library's own histogram, which has a mutex that everything that opens would take, and is written as that is.
/// While observations are made, the sum may be ahead of the counts by those, or behind.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenSeconds(Arc<Observed>);

#[derive(Debug, Default)]
struct Observed {
    /// Nanoseconds: an integer is added to in one step, and this one has room for 584 years of waiting.
    sum: AtomicU64,
    within: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
}

impl OpenSeconds {
    /// Count one that took so long.
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut bounded = BOUNDS.iter().zip(&self.0.within);
        let bucket = bounded.find(|(bound, _)| seconds <= **bound);
        let bucket = bucket.map_or(&self.0.beyond, |(_, bucket)| bucket);
        bucket.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl TypedMetric for OpenSeconds {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for OpenSeconds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.0.within.iter().chain([&self.0.beyond]);
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.sum.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prometheus_client::{
        encoding::text::encode,
        metrics::{family::Family, histogram::Histogram},
        registry::{Metric, Registry, Unit},
    };

    use super::*;

    type Labels = [(&'static str, &'static str); 1];

    const TUNNEL: Labels = [("kind", "tunnel")];

    /// As it is shown.
    fn shown(metric: impl Metric) -> String {
        let mut registry = Registry::with_prefix("sluicegate");
        registry.register_with_unit(
            "open_duration",
            "To an open upstream",
            Unit::Seconds,
            metric,
        );
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn it_is_shown_as_the_librarys_own_is() {
        // Their sums have no remainder, whichever way they are added up.
        let mixed = [0, 1_953_125, 62_500_000, 250_000_000, 500_000_000];
        let mut cases = vec![vec![], mixed.to_vec()];
        // Each bound, and what is on both sides of it.
        for bound in BOUNDS {
            let nanos = Duration::from_secs_f64(bound).as_nanos() as u64;
            cases.extend([nanos - 1, nanos, nanos + 1].map(|one| vec![one]));
        }
        cases.push(vec![86_400_000_000_000]);
        for nanos in cases {
            let ours = Family::<Labels, OpenSeconds>::default();
            let theirs =
                Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(BOUNDS));
            let (own, their) = (
                ours.get_or_create_owned(&TUNNEL),
                theirs.get_or_create_owned(&TUNNEL),
            );
            for took in nanos.iter().copied().map(Duration::from_nanos) {
                own.observe(took);
                their.observe(took.as_secs_f64());
            }
            let text = shown(ours);
            assert_eq!(text, shown(theirs), "{nanos:?}");
            let count = format!(
                "sluicegate_open_duration_seconds_count{{kind=\"tunnel\"}} {}\n",
                nanos.len()
            );
            assert!(text.contains(&count), "{text}");
        }
    }

    #[test]
    fn threads_count_in_one_place() {
        let all = OpenSeconds::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let own = all.clone();
                scope
                    .spawn(move || (0..1000).for_each(|_| own.observe(Duration::from_millis(250))));
            }
        });
        let text = shown(all);
        for line in [
            "sluicegate_open_duration_seconds_sum 1000.0\n",
            "sluicegate_open_duration_seconds_count 4000\n",
            "sluicegate_open_duration_seconds_bucket{le=\"0.1\"} 0\n",
            "sluicegate_open_duration_seconds_bucket{le=\"0.25\"} 4000\n",
            "sluicegate_open_duration_seconds_bucket{le=\"+Inf\"} 4000\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
