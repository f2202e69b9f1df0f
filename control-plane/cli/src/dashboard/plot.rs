//! Plots, drawn here as SVG: whoever looks sees a line, and whoever hears the page its figures in words.

use std::{fmt::Write as _, time::Duration};

use maud::{Markup, html};
use selvedge_control_plane::status::{HistoryPoint, PieceOfTime};

use super::{facts::History, html::length};

/// The size of a plot, in the units of its own picture.
const SIZE: (f64, f64) = (560.0, 168.0);
/// Where the lines are in it: from the left, the top, the right and the bottom.
const MARGIN: (f64, f64, f64, f64) = (54.0, 10.0, 94.0, 22.0);
/// The size of a small one.
const SMALL: (f64, f64) = (112.0, 22.0);
/// How much time a plot shows at least, in seconds, as what is known grows.
const SPANS: [u64; 4] = [300, 900, 1_800, 3_600];

/// How much time one report tells of, in seconds.
const REPORTED: u64 = 15;

/// A line over the last hour: for each piece of time its middle, in seconds ago, and what was there.
pub(super) type Points = Vec<(f64, Option<f64>)>;

/// A line of a plot.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// The class of style sheets.
    pub(super) class: String,
    pub(super) points: Points,
}

/// A plot of the last hour.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// How a number is written.
    pub(super) write: fn(f64) -> String,
    /// The least and the most that the plot shows, whatever there is; `None`: as the lines need it.
    pub(super) least: Option<f64>,
    pub(super) most: Option<f64>,
    /// Whether what is below the first line is filled.
    pub(super) is_filled: bool,
    pub(super) lines: Vec<Line>,
    /// Of how many seconds something is known.
    pub(super) known: u64,
}

/// What a plot has of each piece of time.
pub(super) fn points(
    history: &History,
    sums: &[HistoryPoint],
    of: impl Fn(&HistoryPoint, &PieceOfTime) -> Option<f64>,
) -> Points {
    let pieces = history.pieces.iter().map(|piece| known_part(piece, history.known_seconds)).zip(sums);
    pieces.map(|(piece, sum)| (piece.began as f64 - piece.seconds as f64 / 2.0, of(sum, &piece))).collect()
}

/// The part of a piece of time of which something is known: the oldest one may have begun before. The first report tells of
/// the time before it, too.
fn known_part(piece: &PieceOfTime, known_seconds: u64) -> PieceOfTime {
    let ended = piece.began.saturating_sub(piece.seconds);
    let seconds = known_seconds.saturating_sub(ended).saturating_add(REPORTED).min(piece.seconds);
    PieceOfTime { began: ended + seconds, seconds }
}

/// How many there were in a second.
pub(super) fn rate(point: &HistoryPoint, piece: &PieceOfTime) -> Option<f64> {
    Some(point.count as f64 / piece.seconds.max(1) as f64)
}

/// The line of how many failed in a second; `None`: none did.
pub(super) fn failed(history: &History, sums: &[HistoryPoint]) -> Option<Line> {
    let rate =
        |point: &HistoryPoint, piece: &PieceOfTime| Some(point.failures as f64 / piece.seconds.max(1) as f64);
    let is_some = sums.iter().any(|point| point.failures > 0);
    is_some.then(|| Line {
        name: "failed".to_owned(),
        class: "bad".to_owned(),
        points: points(history, sums, rate),
    })
}

/// How many percent did not fail, of all that have come or ended.
pub(super) fn success(point: &HistoryPoint, _: &PieceOfTime) -> Option<f64> {
    let all = point.count.max(point.ended);
    (all > 0).then(|| all.saturating_sub(point.failures) as f64 * 100.0 / all as f64)
}

impl Plot<'_> {
    pub(super) fn draw(&self) -> Markup {
        let span = SPANS.iter().find(|span| **span >= self.known).copied().unwrap_or(3_600) as f64;
        let values = || self.lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
        if values().next().is_none() {
            return html! { figure.plot { figcaption { (self.title) } p.empty { "nothing yet" } } };
        }
        let least = self.least.unwrap_or_else(|| values().fold(f64::INFINITY, f64::min));
        let (step, most) =
            scale(least, self.most.unwrap_or_else(|| values().fold(0.0, f64::max)), self.most.is_some());
        let (width, height) = (SIZE.0 - MARGIN.0 - MARGIN.2, SIZE.1 - MARGIN.1 - MARGIN.3);
        let x = |ago: f64| MARGIN.0 + width * (1.0 - (ago / span).min(1.0));
        let y = |value: f64| MARGIN.1 + height * (1.0 - ((value - least) / (most - least)).clamp(0.0, 1.0));
        let ticks: Vec<f64> = (0..8)
            .map(|place| least + step * f64::from(place))
            .filter(|tick| *tick <= most + step / 100.0)
            .collect();
        let labels = labels(&self.lines, y);
        html! {
            figure.plot {
                figcaption { (self.title) }
                svg viewBox={"0 0 " (SIZE.0) " " (SIZE.1)} role="img" aria-label=(self.words()) {
                    @for tick in &ticks {
                        line.grid x1=(MARGIN.0) x2=(SIZE.0 - MARGIN.2) y1=(short(y(*tick))) y2=(short(y(*tick))) {}
                        text.tick x=(MARGIN.0 - 6.0) y=(short(y(*tick) + 3.5)) text-anchor="end" { ((self.write)(*tick)) }
                    }
                    @for part in 0..=2_u8 {
                        @let ago = span * f64::from(part) / 2.0;
                        text.tick x=(short(x(ago))) y=(SIZE.1 - 5.0) text-anchor=(if part == 0 { "end" } else if part == 2 { "start" } else { "middle" }) {
                            @if part == 0 { "now" } @else { "−" (ago / 60.0) " min" }
                        }
                    }
                    @for (place, line) in self.lines.iter().enumerate() {
                        @if place == 0 && self.is_filled { path class={"area " (line.class)} d=(area(&line.points, x, y, y(least))) {} }
                        path class={"line " (line.class)} d=(path(&line.points, x, y)) {}
                    }
                    @for (line, at, value) in &labels {
                        text class={"label " (line.class)} x=(SIZE.0 - MARGIN.2 + 6.0) y=(short(*at + 3.5)) {
                            (line.name) " " ((self.write)(*value))
                        }
                    }
                    @for (from, to, words) in self.pieces() {
                        @let (left, right) = (x(from).max(MARGIN.0), x(to).min(SIZE.0 - MARGIN.2));
                        rect.piece x=(short(left)) y=(MARGIN.1) width=(short((right - left).max(0.0))) height=(short(height)) { title { (words) } }
                    }
                }
            }
        }
    }

    /// For whoever points at it, each piece of time in which something is known: from and until when, in seconds ago, and what
    /// each line was there.
    fn pieces(&self) -> Vec<(f64, f64, String)> {
        let Some(first) = self.lines.first() else { return Vec::new() };
        let middle = |place: usize| first.points.get(place).map(|(ago, _)| *ago);
        let piece = |(place, (ago, _)): (usize, &(f64, Option<f64>))| {
            let values = self.lines.iter().filter_map(|line| {
                let (_, value) = line.points.get(place)?;
                Some(format!("{} {}", line.name, (self.write)((*value)?)).trim().to_owned())
            });
            let values = values.collect::<Vec<_>>().join(", ");
            let (before, after) = (place.checked_sub(1).and_then(middle), middle(place + 1));
            let half = |other: Option<f64>| other.map(|other| (other - ago).abs() / 2.0);
            let from = ago + half(before).or(half(after)).unwrap_or(15.0);
            let to = ago - half(after).or(half(before)).unwrap_or(15.0);
            let words = format!("{} ago: {values}", length(Duration::from_secs_f64(ago.max(0.0))));
            (!values.is_empty()).then_some((from, to.max(0.0), words))
        };
        first.points.iter().enumerate().filter_map(piece).collect()
    }

    /// What it shows, in words.
    fn words(&self) -> String {
        let mut words = format!("{}:", self.title);
        for line in &self.lines {
            let mut known = line.points.iter().filter_map(|(_, value)| *value);
            let Some(first) = known.next() else { continue };
            let (mut least, mut most, mut last) = (first, first, first);
            for value in known {
                (least, most, last) = (least.min(value), most.max(value), value);
            }
            let write = self.write;
            let _ = write!(
                words,
                " {} now {}, least {}, most {};",
                line.name,
                write(last),
                write(least),
                write(most)
            );
        }
        words
    }
}

/// Where the names of lines stand at their ends, apart from each other.
fn labels(lines: &[Line], y: impl Fn(f64) -> f64) -> Vec<(&Line, f64, f64)> {
    const APART: f64 = 17.0;
    let last = |line: &Line| line.points.iter().rev().find_map(|(_, value)| *value);
    let mut labels: Vec<(&Line, f64, f64)> =
        lines.iter().filter_map(|line| last(line).map(|value| (line, y(value), value))).collect();
    labels.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut least = MARGIN.1;
    for label in &mut labels {
        label.1 = label.1.max(least);
        least = label.1 + APART;
    }
    // Back up what has been pushed out at the bottom.
    let mut most = SIZE.1 - MARGIN.3;
    for label in labels.iter_mut().rev() {
        label.1 = label.1.min(most);
        most = label.1 - APART;
    }
    labels
}

/// The distance of ticks, and the most of an axis from `least` that has all up to `most`; `is_fixed`: and not more. The most has
/// a tick, too.
fn scale(least: f64, most: f64, is_fixed: bool) -> (f64, f64) {
    let span = if most - least > 1e-9 { most - least } else { 1.0 };
    let power = 10_f64.powf((span / 4.0).log10().floor());
    let mut steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter();
    if is_fixed {
        let ends_at_most = |step: &f64| ((span / step).round() - span / step).abs() < 1e-6;
        let step = steps.find(|step| span / step <= 5.0 + 1e-6 && ends_at_most(step));
        return (step.unwrap_or(span), least + span);
    }
    let step = steps.find(|step| span / step <= 4.0).unwrap_or(power * 10.0);
    (step, least + (span / step).ceil() * step)
}

/// With as many digits as can be seen.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn path(points: &[(f64, Option<f64>)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let (mut path, mut is_open) = (String::new(), false);
    for (place, (ago, value)) in points.iter().enumerate() {
        let Some(value) = value else {
            is_open = false;
            continue;
        };
        let _ = write!(path, "{}{} {}", if is_open { "L" } else { "M" }, short(x(*ago)), short(y(*value)));
        // One that stands alone is a dot.
        if !is_open && points.get(place + 1).is_none_or(|(_, next)| next.is_none()) {
            path.push_str("h.01");
        }
        is_open = true;
    }
    path
}

fn area(
    points: &[(f64, Option<f64>)],
    x: impl Fn(f64) -> f64,
    y: impl Fn(f64) -> f64,
    bottom: f64,
) -> String {
    let mut area = String::new();
    for part in points.split(|(_, value)| value.is_none()).filter(|part| part.len() > 1) {
        let (first, last) = (part[0].0, part[part.len() - 1].0);
        let _ =
            write!(area, "{}L{} {bottom}L{} {bottom}Z", path(part, &x, &y), short(x(last)), short(x(first)));
    }
    area
}

/// A small line of how many there were, with those that failed in it.
pub(super) fn small(history: &History, sums: &[HistoryPoint]) -> Markup {
    let span = SPANS.iter().find(|span| **span >= history.known_seconds).copied().unwrap_or(3_600) as f64;
    let all = points(history, sums, rate);
    let failed = failed(history, sums);
    let most = all.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return html! { span.none { "–" } };
    }
    let x = |ago: f64| SMALL.0 * (1.0 - (ago / span).min(1.0));
    let y = |value: f64| 1.0 + (SMALL.1 - 2.0) * (1.0 - value / most);
    let failures: u64 = sums.iter().fold(0, |sum, point| sum.saturating_add(point.failures));
    let words = format!(
        "at most {most:.1} in a second; {failures} failures in {} min",
        history.known_seconds.div_ceil(60)
    );
    html! {
        svg.small viewBox={"0 0 " (SMALL.0) " " (SMALL.1)} role="img" aria-label=(words) {
            path.area d=(area(&all, x, y, SMALL.1 - 1.0)) {}
            path.line d=(path(&all, x, y)) {}
            @if let Some(failed) = &failed { path.area.bad d=(area(&failed.points, x, y, SMALL.1 - 1.0)) {} path.line.bad d=(path(&failed.points, x, y)) {} }
        }
    }
}

/// A bar that is filled for a share of it.
pub(super) fn bar(percent: f64, class: &str) -> Markup {
    let width = short(percent.clamp(0.0, 100.0));
    html! {
        svg class={"bar " (class)} viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.rest width="100" height="8" rx="2" {}
            rect.part width=(width) height="8" rx="2" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_steps_and_everything_is_on_it() {
        assert_eq!(scale(0.0, 93.0, false), (25.0, 100.0));
        assert_eq!(scale(0.0, 1.0, false), (0.25, 1.0));
        let (step, most) = scale(0.0, 731.0, false);
        assert!(most >= 731.0 && (most / step).fract().abs() < 1e-9);
        for least in [0.0, 20.0, 50.0, 60.0, 75.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 37.0] {
            let (step, most) = scale(least, 100.0, true);
            let ticks = (most - least) / step;
            assert!((most - 100.0).abs() < 1e-9 && (1.0..=5.1).contains(&ticks), "{least}: {step} {most}");
            assert!(
                (ticks - ticks.round()).abs() < 1e-6,
                "{least}: the last tick is at {most}, by steps of {step}"
            );
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_is_known() {
        let points = vec![(3.0, Some(1.0)), (2.0, Some(2.0)), (1.0, None), (0.0, Some(3.0))];
        assert_eq!(path(&points, |x| x, |y| y), "M3 1L2 2M0 3h.01");
        assert_eq!(area(&points, |x| x, |y| y, 0.0), "M3 1L2 2L2 0L3 0Z");
    }

    #[test]
    fn the_oldest_piece_has_the_rate_of_the_time_that_is_known() {
        let pieces = vec![PieceOfTime { began: 170, seconds: 60 }, PieceOfTime { began: 110, seconds: 60 }];
        let history = History { known_seconds: 125, pieces, ..History::default() };
        let sums = [30, 60].map(|count| HistoryPoint { count, ..HistoryPoint::default() });

        // 15 s of it, and as much before the first report.
        assert_eq!(points(&history, &sums, rate), [(125.0, Some(1.0)), (80.0, Some(1.0))]);
    }

    #[test]
    fn nothing_is_drawn_left_of_a_plot() {
        let points = vec![(3_630.0, Some(1.0)), (3_570.0, Some(2.0))];
        let line = Line { name: "all".to_owned(), class: "s1".to_owned(), points };
        let (least, most) = (Some(0.0), None);
        let plot = Plot {
            title: "a",
            write: |_| String::new(),
            least,
            most,
            is_filled: false,
            lines: vec![line],
            known: 3_600,
        };
        let text = plot.draw().0;
        assert!(text.contains(&format!("d=\"M{} ", MARGIN.0)), "{text}");
    }

    #[test]
    fn connections_that_have_come_before_count_where_they_end() {
        let piece = PieceOfTime { began: 60, seconds: 60 };
        let of = |count, ended, failures| {
            success(&HistoryPoint { count, ended, failures, ..HistoryPoint::default() }, &piece)
        };
        assert_eq!(
            [of(0, 0, 0), of(0, 3, 3), of(1, 4, 1), of(5, 0, 0)],
            [None, Some(0.0), Some(75.0), Some(100.0)]
        );
    }

    #[test]
    fn whoever_points_at_a_piece_of_time_is_told_what_was_there() {
        let line = |name: &str, values: [Option<f64>; 3]| Line {
            name: name.to_owned(),
            class: String::new(),
            points: [90.0, 45.0, 15.0].into_iter().zip(values).collect(),
        };
        let plot = Plot {
            title: "Rate",
            write: |rate| format!("{rate:.1}"),
            least: Some(0.0),
            most: None,
            is_filled: true,
            lines: vec![line("all", [Some(2.0), None, Some(4.0)]), line("failed", [None, None, Some(1.0)])],
            known: 120,
        };
        let expected =
            [(112.5, 67.5, "1 min 30 s ago: all 2.0"), (30.0, 0.0, "15 s ago: all 4.0, failed 1.0")];
        assert_eq!(plot.pieces(), expected.map(|(from, to, words)| (from, to, words.to_owned())));
        assert_eq!(plot.draw().0.matches("<title>").count(), 2);
    }

    #[test]
    fn names_at_the_ends_of_lines_do_not_lie_on_each_other() {
        let line =
            |value| Line { name: "a".to_owned(), class: String::new(), points: vec![(0.0, Some(value))] };
        let lines = [line(1.0), line(1.0), line(1.0)];
        let labels = labels(&lines, |_| 140.0);
        assert!(labels.windows(2).all(|pair| pair[1].1 - pair[0].1 >= 12.9), "{labels:?}");
    }
}
