//! Columns out of text with tabs: a cell that a tab ends is as wide as the widest cell of its block, and a block is
//! the run of neighbouring lines that have a cell in that column (Go's `text/tabwriter`, which kubectl's users know).

/// How wide cells are at least, and how many spaces follow the widest.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Least width, padding included.
    pub min: usize,
    /// Spaces after the widest cell.
    pub padding: usize,
}

/// What `get` uses.
pub const TABLE: Style = Style { min: 6, padding: 3 };
/// What `describe` uses.
pub const DESCRIBE: Style = Style { min: 0, padding: 2 };

/// Aligns the tabbed cells of a text.
pub fn align(text: &str, style: Style) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    block(&lines, &mut widths, 0, lines.len(), 0, style);
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (at, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', widths[at].saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

fn block(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    from: usize,
    to: usize,
    column: usize,
    style: Style,
) {
    let mut line = from;
    while line < to {
        if lines[line].len() <= column + 1 {
            line += 1;
            continue;
        }
        let start = line;
        while line < to && lines[line].len() > column + 1 {
            line += 1;
        }
        let longest = (start..line).map(|l| lines[l][column].chars().count()).max().unwrap_or(0);
        // A column that is empty throughout takes no room.
        let width = if longest == 0 { 0 } else { (longest + style.padding).max(style.min) };
        (start..line).for_each(|l| widths[l][column] = width);
        block(lines, widths, start, line, column + 1, style);
    }
}

/// Aligns rows one by one as they come, never narrower than before: what `get --watch` needs.
#[derive(Debug, Default)]
pub struct Rows {
    widths: Vec<usize>,
}

impl Rows {
    /// Takes rows into account.
    pub fn measure<'r>(&mut self, rows: impl IntoIterator<Item = &'r Vec<String>>) {
        for row in rows {
            for (at, cell) in row.iter().enumerate() {
                let width = (cell.chars().count() + TABLE.padding).max(TABLE.min);
                if at < self.widths.len() {
                    self.widths[at] = self.widths[at].max(width);
                } else {
                    self.widths.push(width);
                }
            }
        }
    }

    /// Prints one row; the last cell is not padded.
    pub fn line(&self, row: &[String]) -> String {
        let mut out = String::new();
        for (at, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                let width = self.widths.get(at).copied().unwrap_or(0);
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart() {
        let text = "Name:\tweb\nLabels:\ta=b\n\tc=d\nContainers:\n  x:\n    Image:\ty\n    Ports:\tz\n";
        let want =
            "Name:    web\nLabels:  a=b\n         c=d\nContainers:\n  x:\n    Image:  y\n    Ports:  z\n";
        assert_eq!(align(text, DESCRIBE), want);
    }

    #[test]
    fn tables_have_three_spaces_and_six_columns_at_least() {
        assert_eq!(align("NAME\tAGE\nabcdef\t1s\n", TABLE), "NAME     AGE\nabcdef   1s\n");
        assert_eq!(align("A\tAGE\nb\t1s\n", TABLE), "A     AGE\nb     1s\n");
    }
}
