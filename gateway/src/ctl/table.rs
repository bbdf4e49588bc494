//! Text tables: columns as wide as their widest cell, durations and sizes in the largest unit that fits.
//!
//! Pure. Cells contain validated names and fixed words only, so nothing is escaped.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// Spaces between two columns.
const GAP: usize = 2;

/// Formats the rows under their heads, one line each, without trailing spaces.
pub(super) fn table<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].width()).chain([heads[column].width()]).max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.width() + GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Formats a duration, rounded down: `0.4 s`, `75 s`, `12 min`, `5 h`, `3 d`.
pub(super) fn duration(milliseconds: u64) -> String {
    let seconds = Duration::from_millis(milliseconds).as_secs();
    match seconds {
        0..10 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Formats a size in MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Formats a size: `1023 B`, `9.9 KiB`, `120.0 MiB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / f64::from(1 << 10)),
        _ => mebibytes(bytes),
    }
}

/// Formats a count with its noun: `1 room`, `2 rooms`.
pub(super) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_displayed_width() {
        let rows = [["ann", "g1", ""], ["王小明", "gateway-2", "#lobby"]].map(|row| row.map(str::to_owned));
        let expected = "NICK    GATEWAY    ROOMS\n\
                        ann     g1\n\
                        王小明  gateway-2  #lobby\n";
        assert_eq!(table(["NICK", "GATEWAY", "ROOMS"], &rows), expected);
        assert_eq!(table(["NICK"], &[]), "NICK\n");
    }

    #[test]
    fn durations_and_sizes_use_the_fitting_unit() {
        const MINUTE: u64 = 60_000;
        for (milliseconds, text) in [
            (0, "0.0 s"),
            (449, "0.4 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (119_999, "119 s"),
            (2 * MINUTE, "2 min"),
            (120 * MINUTE, "2 h"),
            (47 * 60 * MINUTE, "47 h"),
            (48 * 60 * MINUTE, "2 d"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
        assert_eq!(mebibytes(1_572_864), "1.5 MiB");
        let sizes = [0, 1023, 1024, 10_138, 1_048_000, 1_048_576, 1_639_972_864].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "9.9 KiB", "1023.4 KiB", "1.0 MiB", "1564.0 MiB"]);
        assert_eq!((count(0, "room"), count(1, "room")), ("0 rooms".to_owned(), "1 room".to_owned()));
    }
}
