//! What is printed: aligned tables, colour on a terminal only, nothing from outside that could steer a terminal.

pub use crate::base::words::tame;

use std::fmt::Write;

/// A page of text in the making.
pub struct Paper {
    text: String,
    colour: bool,
}

/// How a word is shown on a terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// Good.
    Green,
    /// Bad.
    Red,
    /// Of less interest.
    Dim,
}

/// One cell of a table.
pub struct Cell {
    text: String,
    ink: Ink,
    right: bool,
}

/// A cell of text, to the left.
pub fn cell(text: impl ToString) -> Cell {
    Cell { text: tame(&text.to_string()), ink: Ink::Plain, right: false }
}

/// A number, to the right.
pub fn number(text: impl ToString) -> Cell {
    Cell { right: true, ..cell(text) }
}

impl Cell {
    /// The same in another ink.
    pub fn ink(self, ink: Ink) -> Cell {
        Cell { ink, ..self }
    }
}

impl Paper {
    /// An empty page.
    pub fn new(colour: bool) -> Paper {
        Paper { text: String::new(), colour }
    }

    /// The page as text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// A line.
    pub fn line(&mut self, text: &str) {
        self.inked(text, Ink::Plain);
    }

    /// A line in an ink.
    pub fn inked(&mut self, text: &str, ink: Ink) {
        let line = self.dye(&tame(text), ink);
        self.text.push_str(&line);
        self.text.push('\n');
    }

    /// An empty line, then a heading.
    pub fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.inked(text, Ink::Bold);
    }

    /// Text of several lines, as it is but tamed.
    pub fn block(&mut self, text: &str) {
        for line in text.lines() {
            self.line(line);
        }
    }

    /// Rows below each other; every column is as wide as its widest cell, the last one is not filled up.
    pub fn table(&mut self, rows: &[Vec<Cell>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[index].saturating_sub(cell.text.chars().count()));
                let text = self.dye(&cell.text, cell.ink);
                let last = index + 1 == row.len();
                let gap = if last { "" } else { "  " };
                let _ = match (cell.right, last) {
                    (true, _) => write!(line, "{pad}{text}{gap}"),
                    (false, true) => write!(line, "{text}"),
                    (false, false) => write!(line, "{text}{pad}{gap}"),
                };
            }
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    fn dye(&self, text: &str, ink: Ink) -> String {
        let code = match ink {
            Ink::Plain => return text.to_string(),
            Ink::Bold => "1",
            Ink::Green => "32",
            Ink::Red => "31",
            Ink::Dim => "2",
        };
        if self.colour && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_stand_to_the_right() {
        let mut paper = Paper::new(false);
        paper.table(&[vec![cell("host"), number("requests")], vec![cell("a.example"), number(7)]]);
        assert_eq!(paper.into_text(), "host       requests\na.example         7\n");
    }

    #[test]
    fn colour_does_not_disturb_alignment_and_is_left_out_without_a_terminal() {
        for (colour, text) in [(true, "\u{1b}[32mup\u{1b}[0m    x\ndown  x\n"), (false, "up    x\ndown  x\n")] {
            let mut paper = Paper::new(colour);
            paper.table(&[vec![cell("up").ink(Ink::Green), cell("x")], vec![cell("down"), cell("x")]]);
            assert_eq!(paper.into_text(), text);
        }
    }

    #[test]
    fn nothing_printed_can_steer_a_terminal() {
        assert_eq!(tame("a\u{1b}[2Jb\r\n\u{202e}c\u{9b}"), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{202e}c\\u{9b}");
        let mut paper = Paper::new(false);
        paper.table(&[vec![cell("\u{1b}]0;title\u{7}")]]);
        assert!(!paper.into_text().contains('\u{1b}'));
    }
}
