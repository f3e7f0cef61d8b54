//! Tables for the terminal.

use std::fmt::Write;

/// `names`, and `rows` below them, in columns that are two spaces apart and as wide as their widest cell. The first
/// `text_columns` begin on the left; the others are numbers, and end on the right. Each line ends with a line break.
pub(crate) fn text<const N: usize>(names: [&str; N], rows: &[[String; N]], text_columns: usize) -> String {
    let mut widths = names.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    write_line(&mut text, names, widths, text_columns);
    for row in rows {
        write_line(&mut text, row.each_ref().map(String::as_str), widths, text_columns);
    }
    text
}

fn write_line<const N: usize>(text: &mut String, cells: [&str; N], widths: [usize; N], text_columns: usize) {
    for (index, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
        let gap = if index == 0 { "" } else { "  " };
        // Writing to a String cannot fail.
        let _ = if index < text_columns {
            write!(text, "{gap}{cell:<width$}")
        } else {
            write!(text, "{gap}{cell:>width$}")
        };
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["target", "rate", "p99"];

    fn rows() -> [[String; 3]; 2] {
        [["nginx", "max", "4.2ms"], ["serve-kernel", "0", "-"]].map(|row| row.map(str::to_owned))
    }

    #[test]
    fn text_begins_on_the_left_and_numbers_end_on_the_right() {
        let expected = "\
target        rate    p99
nginx         max   4.2ms
serve-kernel  0         -
";
        assert_eq!(text(NAMES, &rows(), 2), expected);
        let expected = "\
target        rate    p99
nginx          max  4.2ms
serve-kernel     0      -
";
        assert_eq!(text(NAMES, &rows(), 1), expected);
    }

    #[test]
    fn the_lines_of_a_table_have_one_width() {
        for text_columns in 0..=NAMES.len() {
            let text = text(NAMES, &rows(), text_columns);
            let widths: Vec<usize> = text.lines().map(str::len).collect();
            assert_eq!(widths, [25, 25, 25], "{text}");
        }
    }

    #[test]
    fn without_rows_there_are_only_the_names() {
        assert_eq!(text(NAMES, &[], 1), "target  rate  p99\n");
    }
}
