//! A picture of something over time as an inline SVG: the report's requests, a node's figures. Its page gives the figures as a
//! table too, for whoever cannot see it.

use crate::base::clock::Wall;
use crate::portal::words;

/// Heights are given in this many units; the style sheet sets the size on the page.
const HEIGHT: u64 = 100;
/// The width of one interval's bar and the room to the next.
const STEP: u64 = 10;
const BAR: u64 = 8;

/// A stacked bar chart.
pub struct Chart {
    pub width: u64,
    pub height: u64,
    pub bar: u64,
    pub bars: Vec<Bar>,
    pub first: String,
    pub middle: String,
    pub last: String,
    pub peak: String,
    /// The chart in a sentence.
    pub summary: String,
}

/// One interval: what was not blocked stands on what was.
pub struct Bar {
    pub x: u64,
    pub allowed_y: u64,
    pub allowed_height: u64,
    pub blocked_y: u64,
    pub blocked_height: u64,
    pub time: String,
    pub requests: String,
    pub blocked: String,
}

/// Draws `series`: (start of interval, requests, blocked). Nothing to draw is no chart.
pub fn chart(series: &[(i64, u64, u64)]) -> Option<Chart> {
    of("Requests", words::count, series)
}

/// [`chart`] of anything else: `what` it is, and how a value is `shown`. The second value of an interval is part of the first.
pub fn of(what: &str, shown: fn(u64) -> String, series: &[(i64, u64, u64)]) -> Option<Chart> {
    let peak = series.iter().map(|(_, requests, _)| *requests).max().filter(|peak| *peak > 0)?;
    let bars: Vec<Bar> =
        series.iter().enumerate().map(|(index, interval)| bar(index, *interval, peak, shown)).collect();
    let time = |index: usize| series.get(index).map(|(start, ..)| short_time(*start)).unwrap_or_default();
    let (first, last) = (time(0), time(series.len() - 1));
    let every = series.get(1).map_or(0, |second| (second.0 - series[0].0).max(0) as u64 / 1_000_000);
    let busiest = series.iter().find(|(_, requests, _)| *requests == peak).map(|(start, ..)| short_time(*start));
    let summary = format!(
        "{what} from {first} to {last} UTC, in {} intervals of {}; the busiest, at {}, had {}.",
        series.len(),
        words::span(every),
        busiest.unwrap_or_default(),
        shown(peak)
    );
    let width = series.len() as u64 * STEP;
    let middle = time(series.len() / 2);
    Some(Chart { width, height: HEIGHT, bar: BAR, bars, first, middle, last, peak: shown(peak), summary })
}

fn bar(index: usize, (start, requests, blocked): (i64, u64, u64), peak: u64, shown: fn(u64) -> String) -> Bar {
    let all = height(requests, peak);
    let blocked_height = height(blocked.min(requests), peak).min(all);
    Bar {
        x: index as u64 * STEP + (STEP - BAR) / 2,
        allowed_y: HEIGHT - all,
        allowed_height: all - blocked_height,
        blocked_y: HEIGHT - blocked_height,
        blocked_height,
        time: short_time(start),
        requests: shown(requests),
        blocked: shown(blocked),
    }
}

/// Something is never drawn as nothing.
fn height(figure: u64, peak: u64) -> u64 {
    match figure {
        0 => 0,
        _ => ((figure as u128 * HEIGHT as u128 / peak as u128) as u64).max(1),
    }
}

pub fn short_time(us: i64) -> String {
    let text = words::moment(us, Wall(us)).text;
    text.get(..16).map(str::to_string).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stack_within_the_height_and_nothing_vanishes() {
        let series = [(1_000_000, 0, 0), (61_000_000, 1, 1), (121_000_000, 1_000_000, 500), (181_000_000, u64::MAX, 7)];
        let chart = chart(&series).unwrap();
        for bar in &chart.bars {
            assert_eq!(bar.blocked_y + bar.blocked_height, HEIGHT);
            assert_eq!(bar.allowed_y + bar.allowed_height, bar.blocked_y);
        }
        assert_eq!(chart.bars[0].blocked_height + chart.bars[0].allowed_height, 0);
        assert_eq!(chart.bars[1].blocked_height, 1);
        assert!(chart.summary.contains("4 intervals of 60 s"), "{}", chart.summary);
    }

    #[test]
    fn no_requests_are_no_chart() {
        assert!(chart(&[]).is_none());
        assert!(chart(&[(1, 0, 0), (2, 0, 0)]).is_none());
    }
}
