//! Many measurements of one thing, as a median and a range.

use std::time::Duration;

/// Measurements, at least one.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Of these values; a single 0 when there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            values.push(0.0);
        }
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The one in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The one that this part of all, between 0 and 1, is not above.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let count = self.0.len();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a part of a count that fits memory"
        )]
        let rank = (part * count as f64).ceil() as usize;
        self.0[rank.clamp(1, count) - 1]
    }

    /// The least.
    pub(crate) fn least(&self) -> f64 {
        self.0[0]
    }

    /// The most.
    pub(crate) fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// `median [least – most]`, with so many digits after the point.
    pub(crate) fn show(&self, digits: usize) -> String {
        let (median, least, most) = (self.median(), self.least(), self.most());
        if self.0.len() == 1 {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} [{least:.digits$} – {most:.digits$}]")
    }
}

/// As a number with a fraction.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
