//! The account of one exchange: what is said about it while it runs, and its one record.

use super::connection::Client;
use super::connection::Request;
use super::core::Held;
use super::upstream::Upstream;
use crate::base::clock::Mono;
use crate::figures::blame_of;
use crate::figures::section_of;
use crate::io;
use crate::io::Deadline;
use crate::limits::LATE_MIME_BYTES_MAX;
use crate::limits::TUNNEL_UPDATE_MS;
use crate::log::OpenRecord;
use crate::log::SpoolFull;
use crate::policy::ListKind;
use crate::policy::Tags;
use crate::record::By;
use crate::record::Draft;
use crate::record::Ended;
use crate::record::Ending;
use crate::record::Late;
use crate::record::PeerCode;
use crate::record::Phase;
use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

/// Everything that is to be said about an exchange. It ends in [`Account::settle`]; dropped without, its record (if it
/// was opened) says that this was an error of ours.
pub(super) struct Account<'a> {
    client: &'a Client<'a>,
    pub(super) held: &'a Rc<Held>,
    pub(super) request_id: u32,
    pub(super) started: Mono,
    /// The same on the wall clock.
    started_us: i64,
    /// When the exchange is over at the latest.
    pub(super) until: Deadline,
    pub(super) request: Option<Request<'a>>,
    pub(super) tags: Tags,
    pub(super) rule: Cow<'a, str>,
    pub(super) filter_name: Cow<'a, str>,
    pub(super) reason: Cow<'a, str>,
    /// The parent proxy that was asked.
    pub(super) parent: Option<Rc<str>>,
    pub(super) ended: Ended,
    record: Option<OpenRecord>,
    /// The answer has begun.
    answering: bool,
    unrecorded: bool,
    settled: bool,
    updated_by: Cell<Deadline>,
}

impl<'a> Account<'a> {
    /// Begins the account of the exchange whose first byte came at `started`, under the policy in force, and its total time:
    /// past that there is a moment left for a last word to the client, then its connection ends whatever it does.
    pub(super) fn begin(client: &'a Client<'a>, held: &'a Rc<Held>, request_id: u32, started: Mono) -> Account<'a> {
        let (deadlines, timeouts) = (&client.state.deadlines, client.state.timeouts());
        client.stream.exchange_by(deadlines.after(timeouts.total.saturating_add(timeouts.linger)));
        Account {
            client,
            held,
            request_id,
            started,
            started_us: deadlines.wall_at(started).0,
            until: deadlines.after(timeouts.total),
            request: None,
            tags: Tags::default(),
            rule: Cow::Borrowed(""),
            filter_name: Cow::Borrowed(""),
            reason: Cow::Borrowed(""),
            parent: None,
            ended: Ended { ending: Ending::running(Phase::Request), ..Ended::default() },
            record: None,
            answering: false,
            unrecorded: false,
            settled: false,
            updated_by: Cell::new(deadlines.after(TUNNEL_UPDATE_MS)),
        }
    }

    /// Who was asked, and how long connecting took.
    pub(super) fn asked(&mut self, upstream: &Upstream) {
        self.ended.ending = Ending::running(Phase::Headers);
        self.ended.connect_us = upstream.connect_us;
        self.ended.peercode = if upstream.parent.is_some() { PeerCode::Parent } else { PeerCode::Direct };
        self.parent = upstream.parent.as_ref().map(|parent| Rc::clone(&parent.name));
        if let Some(record) = &self.record {
            record.update(&self.ended);
        }
    }

    /// Opens the record before somebody else is asked: a process that is killed while it waits for them leaves it, and nobody is
    /// asked for what could not be recorded. What the answer brings is told when it begins.
    pub(super) fn ask(&mut self) -> Result<(), SpoolFull> {
        self.stamp(io::moment());
        self.ended.ending = Ending::running(Phase::Connect);
        self.write(None)
    }

    /// The reference code of the exchange: finds its record.
    pub(super) fn reference(&self) -> String {
        self.client.state.desk.borrow().record_id(self.started_us, self.client.id, self.request_id)
    }

    /// Opens the record, or tells one that is open what the answer brings. From here on the exchange is in the log whatever becomes
    /// of this process, so this comes before the first byte of an answer.
    pub(super) fn open(&mut self, mime: &[u8]) -> Result<(), SpoolFull> {
        self.stamp(Mono::now());
        self.open_stamped(mime)
    }

    /// [`Account::open`] when what is answered has just come: the moment of that is known.
    pub(super) fn open_now(&mut self, mime: &[u8]) -> Result<(), SpoolFull> {
        self.stamp(io::moment());
        self.open_stamped(mime)
    }

    fn open_stamped(&mut self, mime: &[u8]) -> Result<(), SpoolFull> {
        self.ended.first_byte_us = micros(self.ended.elapsed_us);
        self.answering = true;
        let mime = mime.split(|byte| *byte == b';').next().unwrap_or(b"").trim_ascii();
        match &self.record {
            Some(record) if self.is_answer_asked_for() && mime.len() <= LATE_MIME_BYTES_MAX => {
                if !mime.is_empty() {
                    record.tell_late(mime);
                }
                record.update(&self.ended);
                Ok(())
            }
            _ => self.write(Some(mime)),
        }
    }

    /// Whether the answer is the one that the record was opened for, from the one it names.
    fn is_answer_asked_for(&self) -> bool {
        let undisturbed = self.filter_name.is_empty() && self.reason.is_empty();
        undisturbed && self.parent.is_none() && self.ended.peercode != PeerCode::None
    }

    /// Writes the record: before an answer, or with the answer's type. There is none if exchanges may go on unrecorded.
    fn write(&mut self, mime: Option<&[u8]>) -> Result<(), SpoolFull> {
        if self.unrecorded {
            return Ok(()); // counted already, once
        }
        let state = self.client.state;
        let mut scratch = state.scratch.borrow_mut();
        scratch.describe(self.held, &self.tags, self.request.as_ref());
        let mut record = self.record.take();
        let draft = self.draft(&scratch, mime);
        let mut desk = state.desk.borrow_mut();
        if let Some(open) = &mut record {
            let written = desk.rewrite(open, &draft, &self.ended);
            self.record = record;
            return written;
        }
        match desk.open_or_count(&draft, &self.ended) {
            Ok(record) => {
                if record.is_none() {
                    self.unrecorded = true;
                    state.counters.only_counted.add(1);
                }
                self.record = record;
            }
            Err(full) => {
                self.unrecorded = true;
                state.counters.unrecorded.add(1);
                return Err(full);
            }
        }
        Ok(())
    }

    /// Tells the record, which is open, which server a tunnel's client wants.
    pub(super) fn tell_sni(&self, name: &str) {
        if let Some(record) = &self.record {
            record.tell_late(name.as_bytes());
        }
    }

    /// Whether the answer has begun, so that another one cannot be given.
    pub(super) fn is_open(&self) -> bool {
        self.answering
    }

    /// Patches the record's numbers, at most once a second.
    pub(super) fn update(&self, upload: u64, download: u64) {
        let deadlines = &self.client.state.deadlines;
        if !deadlines.passed(self.updated_by.get()) {
            return;
        }
        self.updated_by.set(deadlines.after(TUNNEL_UPDATE_MS));
        if let Some(record) = &self.record {
            let mut ended = self.ended;
            (ended.upload, ended.download) = (upload, download);
            ended.elapsed_us = deadlines.wall().0.saturating_sub(deadlines.wall_at(self.started).0).max(0) as u64;
            ended.ended_us = deadlines.wall().0;
            record.update(&ended);
        }
    }

    /// Ends the exchange: its record is closed, opened first if no answer was ever begun. The connection may outlive it; what
    /// is said later is not heard.
    pub(super) fn settle(&mut self, ending: Ending) {
        self.settle_at(Mono::now(), ending);
    }

    /// [`Account::settle`] when what ended it has just come: the moment of that is known.
    pub(super) fn settle_now(&mut self, ending: Ending) {
        self.settle_at(io::moment(), ending);
    }

    fn settle_at(&mut self, now: Mono, ending: Ending) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let state = self.client.state;
        self.ended.ending =
            if state.cutting.get() && ending.by != By::Nobody { Ending::new(By::Killed, ending.phase) } else { ending };
        self.count();
        if !self.answering && !self.unrecorded && self.open(b"").is_ok() {
            // No answer was begun: there was no first byte.
            self.ended.first_byte_us = 0;
        }
        self.stamp(now);
        if let Some(record) = self.record.take() {
            record.close(&self.ended);
        }
    }

    fn stamp(&mut self, now: Mono) {
        self.ended.elapsed_us = now.micros_since(self.started);
        self.ended.ended_us = self.started_us + self.ended.elapsed_us as i64;
    }

    fn count(&self) {
        let counters = &self.client.state.counters;
        counters.exchanges.add(1);
        counters.upload.add(self.ended.upload);
        counters.download.add(self.ended.download);
        if (500..600).contains(&self.ended.status) {
            counters.answered_5xx.add(1);
        }
        match self.ended.ending.by {
            By::Nobody => {}
            // Past its request, what the node ends itself is an exchange that took too long.
            By::Local if self.ended.ending.phase != Phase::Request => self.count_failed(),
            By::Policy | By::Local => {
                counters.denied.add(1);
                counters.denials[section_of(&self.filter_name)].add(1);
            }
            _ => self.count_failed(),
        }
    }

    fn count_failed(&self) {
        let counters = &self.client.state.counters;
        counters.failed.add(1);
        if matches!(self.ended.ending.phase, Phase::Queue | Phase::Connect) {
            counters.connect_failed.add(1);
        }
        counters.failures[blame_of(self.ended.ending.by.code())].add(1);
    }

    fn draft<'d>(&'d self, scratch: &'d Scratch, mime: Option<&'d [u8]>) -> Draft<'d> {
        let mut draft = Draft {
            client_id: self.client.id,
            request_id: self.request_id,
            started_us: self.started_us,
            client: self.client.address.get(),
            interface: self.client.interface,
            mime: mime.unwrap_or(b""),
            filter_name: &self.filter_name,
            filtering_reason: &self.reason,
            rule: &self.rule,
            snapshot: self.held.snapshot.name(),
            time_profiles: &scratch.time_profiles,
            user_groups: &scratch.user_groups,
            request_types: &scratch.request_types,
            categories: &scratch.categories,
            profiles: &scratch.profiles,
            ..Draft::default()
        };
        if let Some(Request { head, buf, .. }) = self.request {
            draft.method = head.method(buf).as_bytes();
            draft.url = scratch.url.as_bytes();
            draft.referer = head.field(buf, "referer").unwrap_or(b"");
            draft.useragent = head.field(buf, "user-agent").unwrap_or(b"");
            draft.request_host = head.host();
            draft.late = match mime {
                _ if head.is_connect() => Some(Late::Sni),
                None => Some(Late::Mime),
                Some(_) => None,
            };
            draft.peer = match &self.parent {
                Some(parent) => parent,
                None if mime.is_some() && self.ended.peercode == PeerCode::None => "tidegate",
                None => head.host(),
            };
        }
        draft
    }
}

fn micros(micros: u64) -> u32 {
    u32::try_from(micros).unwrap_or(u32::MAX)
}

/// The core's room to spell what a record says, kept so that spelling allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    url: String,
    spelt: Option<(Rc<Held>, Tags)>,
    time_profiles: String,
    user_groups: String,
    request_types: String,
    categories: String,
    profiles: String,
}

impl Scratch {
    fn describe(&mut self, held: &Rc<Held>, tags: &Tags, request: Option<&Request<'_>>) {
        self.url.clear();
        if let Some(request) = request {
            request.head.write_url(request.buf, &mut self.url);
        }
        // One site's requests mostly carry the same tags: the lists are then spelt already.
        if self.spelt.as_ref().is_some_and(|(by, of)| Rc::ptr_eq(by, held) && of == tags) {
            return;
        }
        let lists = [
            (ListKind::TimeProfiles, &mut self.time_profiles),
            (ListKind::UserGroups, &mut self.user_groups),
            (ListKind::RequestTypes, &mut self.request_types),
            (ListKind::Categories, &mut self.categories),
            (ListKind::Profiles, &mut self.profiles),
        ];
        for (kind, list) in lists {
            list.clear();
            held.snapshot.write_list(tags, kind, list);
        }
        self.spelt = Some((Rc::clone(held), *tags));
    }
}
