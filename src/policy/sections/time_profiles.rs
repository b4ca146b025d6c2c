//! Time Profiles: names for stretches of the week. A stretch past midnight belongs to the day it starts on.

use crate::base::clock::Wall;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
use crate::policy::snapshot::body::ArchivedTimeProfile;
use crate::policy::snapshot::body::DateRange;
use crate::policy::snapshot::body::TimeProfile;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

const DAY_MINUTES: u16 = 24 * 60;
/// The zone of a profile that names none: the node's own.
pub const LOCAL: &str = "local";
const DAYS: [(&str, u8); 14] = [
    ("mon", 0),
    ("tue", 1),
    ("wed", 2),
    ("thu", 3),
    ("fri", 4),
    ("sat", 5),
    ("sun", 6),
    ("monday", 0),
    ("tuesday", 1),
    ("wednesday", 2),
    ("thursday", 3),
    ("friday", 4),
    ("saturday", 5),
    ("sunday", 6),
];

/// Reads `[[time_profiles]]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    for mut table in root.tables("time_profiles", out) {
        let name =
            builder::name_of(&mut table, out).and_then(|name| builder.time_profiles.define(&name, out).map(|_| name));
        table.text("comment", crate::limits::POLICY_TEXT_BYTES_MAX, out);
        let days = table.texts("days", 32, out);
        let days = days.map_or(0x7f, |said| said.iter().fold(0, |days, said| days | day_range(said, out)));
        let from = table.text("from", 16, out).and_then(|said| time_of_day(&said, out)).unwrap_or(0);
        let to = table.text("to", 16, out).and_then(|said| time_of_day(&said, out)).unwrap_or(DAY_MINUTES);
        if from == to || from == DAY_MINUTES {
            let remedy = "write another `to`; a whole day is from = \"00:00\", to = \"24:00\"";
            out.add(&table.spot_of("from"), "the stretch is empty", remedy);
        }
        let zone = zone(&mut table, builder, out);
        let dates = table.texts("dates", 32, out).unwrap_or_default();
        let dates = dates.iter().filter_map(|said| date_range(said, out)).collect();
        table.finish(out);
        if let Some(name) = name {
            builder.body.time_profiles.push(TimeProfile { name: name.value, days, from, to, zone, dates });
        }
    }
}

/// `mon`, or `mon..fri` (which may go past Sunday), as bits from Monday.
fn day_range(said: &Said<String>, out: &mut Complaints) -> u8 {
    let (first, last) = said.value.split_once("..").unwrap_or((&said.value, &said.value));
    let mut day = |text: &str| {
        let part = Said { value: text.trim().to_string(), spot: said.spot.clone() };
        builder::choice(&part, &DAYS, out)
    };
    let (Some(first), Some(last)) = (day(first), day(last)) else {
        return 0;
    };
    let length = (7 + last - first) % 7;
    (0..=length).fold(0, |days, offset| days | 1 << ((first + offset) % 7))
}

fn time_of_day(said: &Said<String>, out: &mut Complaints) -> Option<u16> {
    let minutes = parse_time(&said.value);
    if minutes.is_none() {
        out.add(
            &said.spot,
            format!("bad time `{}`", said.value),
            "write hours and minutes, such as \"08:30\" (up to \"24:00\")",
        );
    }
    minutes
}

fn parse_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= DAY_MINUTES).then_some(hours * 60 + minutes)
}

/// The number of the profile's zone among the snapshot's.
fn zone(table: &mut Table, builder: &mut Builder, out: &mut Complaints) -> u16 {
    let said = table.text("timezone", 64, out);
    let name = said.as_ref().map_or(LOCAL, |said| said.value.as_str());
    if let (Some(said), None) = (&said, load_zone(name)) {
        let remedy = "write a name such as \"Europe/Berlin\" or \"UTC\", or \"local\" for each node's own zone";
        out.add(&said.spot, format!("unknown time zone `{name}`"), remedy);
    }
    let zones = &mut builder.body.zones;
    let known = zones.iter().position(|zone| zone == name);
    known.unwrap_or_else(|| {
        zones.push(name.to_string());
        zones.len() - 1
    }) as u16
}

/// The rules of a zone from this node's database.
pub fn load_zone(name: &str) -> Option<TimeZone> {
    if name == LOCAL { Some(TimeZone::system()) } else { TimeZone::get(name).ok() }
}

/// `2026-12-24`, or `2026-12-24..2027-01-02`.
fn date_range(said: &Said<String>, out: &mut Complaints) -> Option<DateRange> {
    let (first, last) = said.value.split_once("..").unwrap_or((&said.value, &said.value));
    let day = |text: &str| text.trim().parse::<Date>().ok().filter(|date| date.year() >= 1).map(day_number);
    let range = day(first).zip(day(last)).filter(|(first, last)| first <= last);
    if range.is_none() {
        let remedy = "write \"2026-12-24\" or \"2026-12-24..2027-01-02\"";
        out.add(&said.spot, format!("bad date `{}`", said.value), remedy);
    }
    range.map(|(first, last)| DateRange { first, last })
}

fn day_number(date: Date) -> u32 {
    date.year().unsigned_abs() as u32 * 10_000
        + date.month().unsigned_abs() as u32 * 100
        + u32::from(date.day().unsigned_abs())
}

/// A moment as the clocks of one zone show it.
#[derive(Clone, Copy)]
pub struct LocalTime {
    date: Date,
    minutes: u16,
}

impl LocalTime {
    /// `now` in `zone`.
    pub fn new(now: Wall, zone: &TimeZone) -> Self {
        let timestamp = Timestamp::from_microsecond(now.0).unwrap_or_default();
        let local = zone.to_offset(timestamp).to_datetime(timestamp);
        LocalTime { date: local.date(), minutes: local.hour() as u16 * 60 + local.minute() as u16 }
    }

    /// `Mon 2026-03-02 09:12`
    pub fn words(&self) -> String {
        let day = DAYS[self.date.weekday().to_monday_zero_offset() as usize].0;
        format!("{day} {} {}", self.date, clock(self.minutes))
    }
}

impl ArchivedTimeProfile {
    /// Whether the profile holds at `local`.
    #[inline]
    pub fn holds(&self, local: &LocalTime) -> bool {
        let (from, to) = (self.from.to_native(), self.to.to_native());
        if from < to {
            return from <= local.minutes && local.minutes < to && self.holds_on(local.date);
        }
        // Past midnight: the evening is of this day, the early morning of the day before.
        (local.minutes >= from && self.holds_on(local.date))
            || (local.minutes < to && local.date.yesterday().is_ok_and(|day| self.holds_on(day)))
    }

    fn holds_on(&self, date: Date) -> bool {
        let day = self.days & 1 << date.weekday().to_monday_zero_offset() != 0;
        let number = day_number(date);
        let within = |range: &crate::policy::snapshot::body::ArchivedDateRange| {
            range.first.to_native() <= number && number <= range.last.to_native()
        };
        day && (self.dates.is_empty() || self.dates.iter().any(within))
    }

    /// The stretch in words.
    pub fn words(&self) -> String {
        let days: Vec<&str> =
            DAYS[..7].iter().filter(|(_, day)| self.days & 1 << day != 0).map(|(name, _)| *name).collect();
        let dates = if self.dates.is_empty() { "" } else { " on its dates" };
        format!("{} {}-{}{dates}", days.join(","), clock(self.from.to_native()), clock(self.to.to_native()))
    }
}

fn clock(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}
