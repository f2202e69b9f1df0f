//! Tables as every command prints them.
//!
//! A table that is wider than the terminal it is printed on would be broken anywhere by that. There each row has lines of its own
//! instead, with the columns' names beside what they hold. What goes into a pipe or a file is the whole table.

use std::io;

use comfy_table::{Cell, Row, Table, presets};
use rustix::termios::tcgetwinsize;

/// What stands in a cell of which nothing is known.
const NOTHING: &str = "-";
/// Between two columns of a row that has lines of its own.
const GAP: &str = "   ";

/// A table without lines, with this header.
pub(crate) fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}

/// The table's lines without the blanks at their ends, as they fit on the terminal of standard output.
pub(crate) fn trimmed(table: &Table) -> String {
    let size = tcgetwinsize(io::stdout()).ok();
    // Some terminals do not know how wide they are, and say 0.
    laid_out(table, size.map(|size| size.ws_col.into()).filter(|width| *width > 0))
}

/// The same for a terminal of this width; `None`: for no terminal.
fn laid_out(table: &Table, width: Option<usize>) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    match width {
        Some(width) if widest > width => by_row(table, width),
        _ => lines.join("\n"),
    }
}

/// Each row in lines of its own: its first cell, and below it the others that hold something, as many in a line as it has room for.
fn by_row(table: &Table, width: usize) -> String {
    let header: Vec<String> =
        table.header().into_iter().flat_map(Row::cell_iter).map(Cell::content).collect();
    let mut lines = Vec::new();
    for row in table.row_iter() {
        let mut cells = header.iter().zip(row.cell_iter().map(Cell::content));
        lines.extend(cells.next().map(|(_, first)| first));
        let mut line = String::new();
        for (name, content) in cells.filter(|(_, content)| content != NOTHING) {
            let words = format!("{name} {content}");
            let is_full = line.chars().count() + GAP.len() + words.chars().count() > width;
            if is_full && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line += if line.is_empty() { "  " } else { GAP };
            line += &words;
        }
        lines.extend(Some(line).filter(|line| !line.is_empty()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = new_table(["SERVICE", "SUCCESS", "RPS", "P50", "MTLS"]);
        table.add_row(["reviews.default.svc.cluster.local:9080", "100 %", "50.0", "1.2 ms", "100 %"]);
        table.add_row(["unknown", "0 %", "0.1", "-", "-"]);
        table
    }

    #[test]
    fn a_table_that_is_wider_than_the_terminal_has_lines_for_each_row() {
        let narrow = "reviews.default.svc.cluster.local:9080\n  SUCCESS 100 %   RPS 50.0   P50 1.2 ms\n  MTLS 100 %\n\
                      unknown\n  SUCCESS 0 %   RPS 0.1";
        assert_eq!(laid_out(&table(), Some(40)), narrow);
        let widest = laid_out(&table(), Some(60)).lines().map(str::len).max();
        assert!(widest <= Some(60), "{widest:?}");
    }

    #[test]
    fn what_has_room_and_what_is_read_by_programs_is_a_whole_table() {
        let whole = laid_out(&table(), None);
        assert_eq!(whole.lines().count(), 3);
        assert!(whole.starts_with("SERVICE") && whole.ends_with('-'), "{whole}");
        assert_eq!(laid_out(&table(), Some(80)), whole);
    }
}
