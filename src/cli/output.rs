//! Writing to stdout and stderr, where a reader that went away (`lakeward tables | head`) is no error.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Prints `text` and a line end to stdout.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Prints one JSON document to stdout.
pub(super) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value).context("the result has no JSON form")?)
}

/// Prints an answer as it was asked for.
pub(super) fn answer<T: Serialize>(json: bool, answer: &T, text: impl Fn(&T) -> String) -> anyhow::Result<()> {
    if json { print_json(answer) } else { print(&text(answer)) }
}

/// Prints `text` to stderr; where even that fails there is nobody left to tell.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Columns separated by two spaces, each as wide as its widest cell; numbers (`right`) end in one line.
pub(super) fn columns(header: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        cells.chain([header[index].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(header.iter().zip(&widths))
            .map(|(cell, ((_, align), width))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().map(|(name, _)| *name))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    Left,
    Right,
}

/// `1234567` as `1 234 567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `0.4s`, `12s`, `3m 20s`, `5h 7m`, `2d 3h`
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    // A lag of more than u64::MAX seconds saturates.
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let header = [("TABLE", Align::Left), ("ROWS", Align::Right), ("STATE", Align::Left)];
        let rows =
            [vec!["a".into(), "1 000".into(), "streaming".into()], vec!["longer".into(), "7".into(), "x".into()]];
        let expected = "TABLE    ROWS  STATE\na       1 000  streaming\nlonger      7  x";
        assert_eq!(columns(&header, &rows), expected);
    }

    #[test]
    fn numbers_and_durations_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        let durations = [-1.0, 0.44, 12.3, 59.9, 200.0, 18_420.0, 183_600.0].map(duration);
        assert_eq!(durations, ["0.0s", "0.4s", "12s", "1m 0s", "3m 20s", "5h 7m", "2d 3h"]);
    }
}
