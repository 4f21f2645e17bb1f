//! Figures of several engines per round, and their ratios within a round.

use crate::engine::Engine;

/// The figures of one engine, one per round.
pub struct Row {
    pub name: &'static str,
    figures: Vec<f64>,
}

/// One row per engine, of what `measure` returns for each: all engines have had their turns within it.
pub fn rows(
    engines: &[Engine],
    rounds: usize,
    mut measure: impl FnMut(usize) -> Vec<f64>,
) -> Vec<Row> {
    let new_row = |engine: &Engine| Row {
        name: engine.name,
        figures: Vec::new(),
    };
    let mut rows: Vec<Row> = engines.iter().map(new_row).collect();
    for round in 0..rounds {
        for (row, figure) in rows.iter_mut().zip(measure(round)) {
            row.figures.push(figure);
        }
    }
    rows
}

/// Whose turn it is: `count` engines, of which none always follows the same other one.
pub fn order(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    let backwards = turn % 2 == 1;
    (0..count).map(move |at| {
        let at = (at + turn) % count;
        if backwards { count - 1 - at } else { at }
    })
}

pub fn print_rows(rows: &[Row], unit: &str) {
    for Row { name, figures } in rows {
        let (least, median, most) = spread(figures.iter().copied());
        println!(
            "  {name:<24} {median:>10.*} {unit} ({least:.*}-{most:.*})",
            digits(median),
            digits(median),
            digits(median)
        );
    }
}

fn digits(figure: f64) -> usize {
    if figure < 100.0 { 3 } else { 0 }
}

/// Prints by how much the figures of `ours` exceed those of `peer`: the median over the rounds of the ratio within a round,
/// so that a slow moment of the machine meets both. `inverse` for figures of which less is better.
pub fn print_ratio(rows: &[Row], ours: &str, peer: &str, inverse: bool) {
    let find = |name| rows.iter().find(|row| row.name == name);
    let (Some(ours), Some(peer)) = (find(ours), find(peer)) else {
        return;
    };
    let ratio = |(ours, peer): (&f64, &f64)| {
        if inverse { peer / ours } else { ours / peer }
    };
    let (least, median, most) = spread(ours.figures.iter().zip(&peer.figures).map(ratio));
    println!(
        "    {median:>6.2}x ({least:.2}-{most:.2})  [{}] over [{}]",
        ours.name, peer.name
    );
}

/// Least, median and most.
fn spread(values: impl IntoIterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    (values[0], middle, values[values.len() - 1])
}
