//! Sizes as `docker run` takes them.

/// Parses a size in bytes: a number, with `b`, `k`, `m`, `g` or `t` for powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    let units = [('k', 1), ('m', 2), ('g', 3), ('t', 4)];
    let unit = units.into_iter().find(|(unit, _)| text.ends_with(*unit));
    let (number, power) = match unit {
        Some((_, power)) => (text.get(..text.len() - 1)?, power),
        None => (text, 0),
    };
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite())?;
    let bytes = number * 1024_f64.powi(power);
    #[expect(clippy::cast_possible_truncation, reason = "checked against the largest size")]
    (0.0..9e18).contains(&bytes).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (text, expected) in [
            ("512", Some(512)),
            ("64b", Some(64)),
            ("1k", Some(1024)),
            ("1.5g", Some(3 << 29)),
            ("2GiB", Some(2 << 30)),
            ("", None),
            ("-1", None),
            ("many", None),
            ("nan", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
