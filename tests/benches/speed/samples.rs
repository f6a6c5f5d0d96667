//! Several measurements of the same thing, as a median and a range.

use std::time::Duration;

/// One or more measurements.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Takes these values, or a single 0 if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            values.push(0.0);
        }
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The smallest value that is at least as large as this part of all values; `part` is between 0 and 1.
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

    /// The minimum.
    pub(crate) fn least(&self) -> f64 {
        self.0[0]
    }

    /// The maximum.
    pub(crate) fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// `median [minimum – maximum]`, with this number of decimal places.
    pub(crate) fn show(&self, digits: usize) -> String {
        let (median, least, most) = (self.median(), self.least(), self.most());
        if self.0.len() == 1 {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} [{least:.digits$} – {most:.digits$}]")
    }
}

/// Fractional milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
