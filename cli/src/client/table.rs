//! Formats tables for people.

use std::fmt;
use std::time::Duration;

use gantry_ops::terminal::one_line;
use unicode_width::UnicodeWidthStr as _;

/// Rows with aligned columns.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [&'static str; N],
    rows: Vec<[String; N]>,
    when_empty: &'static str,
}

impl<const N: usize> Table<N> {
    /// `when_empty` is printed if there are no rows, with advice how to get one.
    pub(crate) fn new(columns: [&'static str; N], when_empty: &'static str) -> Self {
        Self { columns, rows: Vec::new(), when_empty }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| one_line(&cell)));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return writeln!(f, "{}", self.when_empty);
        }
        let mut widths = self.columns.map(|column| column.width());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        write_row(f, self.columns, &widths)?;
        self.rows
            .iter()
            .try_for_each(|row| write_row(f, row.each_ref().map(String::as_str), &widths))
    }
}

fn write_row<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    cells: [&str; N],
    widths: &[usize; N],
) -> fmt::Result {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.push_str(&" ".repeat(width.saturating_sub(cell.width()) + 2));
    }
    writeln!(f, "{}", line.trim_end())
}

/// The properties of one object, one line for each. Absent properties are left out.
#[derive(Debug, Default)]
pub(crate) struct Details {
    lines: Vec<(&'static str, String)>,
}

impl Details {
    pub(crate) fn line(&mut self, name: &'static str, value: impl fmt::Display) -> &mut Self {
        self.lines.push((name, one_line(&value.to_string())));
        self
    }

    pub(crate) fn maybe(
        &mut self,
        name: &'static str,
        value: Option<impl fmt::Display>,
    ) -> &mut Self {
        if let Some(value) = value {
            self.line(name, value);
        }
        self
    }

    /// One line for each value, with the name only before the first.
    pub(crate) fn each(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = impl fmt::Display>,
    ) -> &mut Self {
        for (index, value) in values.into_iter().enumerate() {
            self.line(if index == 0 { name } else { "" }, value);
        }
        self
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
        self.lines.iter().try_for_each(|(name, value)| writeln!(f, "{name:width$}  {value}"))
    }
}

/// A time of the API, without fractions of a second: `2026-03-09T20:30:10Z`.
pub(crate) fn instant(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((to_the_second, fraction)) if fraction.ends_with('Z') => format!("{to_the_second}Z"),
        _ => rfc3339.to_owned(),
    }
}

/// A duration, like `00:01:09`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A size, like `3.4 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_display_width() {
        let mut table = Table::new(["NAME", "STATUS", "WHY"], "nothing here");
        table.row(["漢字".to_owned(), "Enabled".to_owned(), String::new()]);
        table.row([
            "a-long-name".to_owned(),
            "Off".to_owned(),
            "two\nlines \u{1b}[31mred".to_owned(),
        ]);
        insta::assert_snapshot!(table, @r"
        NAME         STATUS   WHY
        漢字         Enabled
        a-long-name  Off      two lines red
        ");
    }

    #[test]
    fn an_empty_table_says_what_to_do() {
        let table =
            Table::new(["NAME"], "no tasks yet: `gantry task create --help` shows how to make one");
        insta::assert_snapshot!(table, @"no tasks yet: `gantry task create --help` shows how to make one");
    }

    #[test]
    fn times_and_sizes_are_readable() {
        assert_eq!(instant("2026-03-09T20:30:10.123Z"), "2026-03-09T20:30:10Z");
        assert_eq!(instant("2026-03-09T20:30:10Z"), "2026-03-09T20:30:10Z");
        assert_eq!(clock(Duration::from_millis(3_909_999)), "01:05:09");
        let sizes = [0, 1023, 1024, 1_600_000, 10 << 30].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "10.0 GiB"]);
    }
}
