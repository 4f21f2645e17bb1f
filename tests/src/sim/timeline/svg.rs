//! A timeline as a picture that any browser shows.

use std::fmt::Write as _;

use super::{Line, Timeline, What};
use crate::sim::{Place, Us, node};

const LANE_WIDTH: usize = 330;
const LEFT: usize = 90;
const TOP: usize = 40;
const ROW_HEIGHT: usize = 15;

fn lane(place: Place) -> usize {
    LEFT + place * LANE_WIDTH + 10
}

/// Rows are events, not time: what happens close together stays readable, and each row carries its time.
pub(super) fn draw(timeline: &Timeline, nodes: usize) -> String {
    let lines: Vec<&Line> = timeline.lines().collect();
    let height = TOP + (lines.len() + 2) * ROW_HEIGHT;
    let width = LEFT + nodes * LANE_WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"11\">\n"
    );
    svg.push_str("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
    for place in 0..nodes {
        let x = lane(place);
        let name = node::name(place);
        push(
            &mut svg,
            format_args!("<text x=\"{x}\" y=\"20\" font-weight=\"bold\">{name}</text>"),
        );
        push(
            &mut svg,
            format_args!("<path d=\"M{x} {TOP} V{height}\" stroke=\"#ccc\"/>"),
        );
    }
    let times: Vec<Us> = lines.iter().map(|line| line.at).collect();
    for (row, line) in lines.iter().enumerate() {
        draw_line(&mut svg, row, line, &times, width);
    }
    svg.push_str("</svg>\n");
    svg
}

fn push(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a string takes everything");
}

fn row_y(row: usize) -> usize {
    TOP + (row + 1) * ROW_HEIGHT
}

fn draw_line(svg: &mut String, row: usize, line: &Line, times: &[Us], width: usize) {
    let y = row_y(row);
    let ms = line.at as f64 / 1_000.0;
    push(
        svg,
        format_args!("<text x=\"2\" y=\"{y}\" fill=\"#888\">{ms:.1}</text>"),
    );
    let text = escape(&line.text);
    match line.what {
        What::World => {
            push(
                svg,
                format_args!(
                    "<path d=\"M{LEFT} {y} H{width}\" stroke=\"#c33\" stroke-dasharray=\"3\"/>"
                ),
            );
            push(
                svg,
                format_args!("<text x=\"{LEFT}\" y=\"{y}\" fill=\"#c33\">{text}</text>"),
            );
        }
        What::Node(place) => {
            let (x, text_x) = (lane(place), lane(place) + 6);
            push(
                svg,
                format_args!("<circle cx=\"{x}\" cy=\"{}\" r=\"3\"/>", y - 4),
            );
            push(
                svg,
                format_args!("<text x=\"{text_x}\" y=\"{y}\">{text}</text>"),
            );
        }
        What::Message(from, to, arrives) => {
            let end = arrives.unwrap_or(line.at);
            let end_row = times.partition_point(|at| *at < end).max(row);
            let (x1, x2, y2) = (lane(from), lane(to), row_y(end_row));
            let colour = if arrives.is_some() { "#36c" } else { "#c99" };
            push(
                svg,
                format_args!(
                    "<path d=\"M{x1} {y} L{x2} {y2}\" stroke=\"{colour}\"><title>{text}</title></path>"
                ),
            );
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
