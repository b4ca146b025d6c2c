//! The bodies of an exchange on their way: long ones that nobody reads through a pipe in the kernel, the others through a buffer.

use super::Account;
use super::Body;
use super::Delivery;
use super::Failure;
use super::Phase;
use super::Room;
use super::Stop;
use super::Wait;
use super::client_cut;
use super::origin_cut;
use crate::io::Dry;
use crate::io::Meter;
use crate::io::Patience;
use crate::io::pour;
use std::io::ErrorKind;

impl Delivery<'_> {
    pub(super) async fn upload(&self, body: &mut Body) {
        let (mut way, mut buf) = (Way { origin_takes: true, pipes: true, carry_first: false }, Vec::new());
        let fault = loop {
            if body.is_whole() {
                self.gate.uploaded.set(way.origin_takes);
                break None;
            }
            let moved = match body.unread(0) {
                Some(left) if way.is_open() && !self.gate.answered.get() => self.pour_up(body, left, &mut way).await,
                _ => self.carry_up(body, &mut buf, &mut way).await,
            };
            if let Err(fault) = moved {
                break Some(fault);
            }
        };
        self.client.state.bodies.give(buf);
        if let Some(fault) = fault
            && !self.gate.answered.get()
        {
            self.gate.fault.set(Some(fault));
            // The origin must not take a part for the whole, and the answer need not be waited for.
            self.origin.end();
        }
    }

    /// Pours the rest of a long body. What the client sent behind it stays in its connection.
    async fn pour_up(&self, body: &mut Body, left: u64, way: &mut Way) -> Result<(), Failure> {
        let state = self.client.state;
        let patience = Patience { within: state.timeouts().body, until: self.until };
        let mut meter = Upload { delivery: self, body };
        match pour(self.client.stream, self.origin, &state.pipes, left, patience, &mut meter).await {
            Ok(()) => Ok(()),
            Err(Dry::Arrived) => {
                way.carry_first = true;
                Ok(())
            }
            Err(Dry::NoPipe) => {
                way.pipes = false;
                Ok(())
            }
            // It may have answered already; reading on keeps the way to the client open for that.
            Err(Dry::Taker(_)) => {
                way.origin_takes = false;
                Ok(())
            }
            Err(Dry::Giver(error)) if error.kind() == ErrorKind::TimedOut => Err(Failure::SlowBody),
            Err(Dry::Ended | Dry::Giver(_)) => Err(Failure::ClientGone(Phase::Data)),
        }
    }

    /// Receives one piece of the body and sends it on.
    async fn carry_up(&self, body: &mut Body, buf: &mut Vec<u8>, way: &mut Way) -> Result<(), Failure> {
        let state = self.client.state;
        way.carry_first = false;
        if buf.capacity() == 0 {
            *buf = state.bodies.take();
        }
        buf.clear();
        let answered = self.gate.answered.get();
        let within = if answered { state.timeouts().linger } else { state.timeouts().body };
        let deadline = state.deadlines.after(within).or_earlier(self.until);
        let (received, back) = self.client.stream.recv(std::mem::take(buf), deadline, Wait::Soon).await;
        *buf = back;
        match received {
            Ok(0) => return Err(Failure::ClientGone(Phase::Data)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(Failure::SlowBody),
            Err(_) => return Err(Failure::ClientGone(Phase::Data)),
        }
        let taken = body.take(buf).map_err(Failure::BadBody)?;
        self.gate.upload.set(self.gate.upload.get() + taken.payload);
        self.gate.behind.borrow_mut().extend_from_slice(&buf[taken.bytes..]);
        buf.truncate(taken.kept);
        if way.origin_takes && !self.gate.answered.get() {
            let (sent, back) = self.origin.send(std::mem::take(buf), 0, state.timeouts().body).await;
            *buf = back;
            // It may have answered already; reading on keeps the way to the client open for that.
            way.origin_takes = sent.is_ok();
            self.put_answer_off();
        }
        Ok(())
    }

    /// The time to answer counts from the end of the request.
    fn put_answer_off(&self) {
        let state = self.client.state;
        self.origin.receive_by(state.deadlines.after(state.timeouts().answer).or_earlier(self.until));
    }

    /// The rest of the answer's body. True if nothing came behind it.
    pub(super) async fn stream(
        &self,
        account: &mut Account<'_>,
        room: &mut Room,
        body: &mut Body,
        dechunk: bool,
        by_close: bool,
    ) -> Result<bool, Stop> {
        let (mut buf, mut clean, mut pipes) = (Vec::new(), true, true);
        while !body.is_whole() {
            let poured = match body.unread(account.ended.download) {
                Some(left) if pipes => Some(self.pour_down(account, body, left).await),
                _ => None,
            };
            match poured {
                // What came behind the answer is still in its connection.
                Some(Ok(())) => clean &= self.origin.is_silent(),
                Some(Err(Dry::Ended)) if body.ends_by_close() => break,
                Some(Err(Dry::Ended)) => return Err(origin_cut(None, by_close)),
                Some(Err(Dry::Giver(error))) => return Err(origin_cut(Some(error), by_close)),
                Some(Err(Dry::Taker(error))) => return Err(client_cut(&error, by_close)),
                Some(Err(Dry::NoPipe)) => pipes = false,
                None | Some(Err(Dry::Arrived)) => {
                    let how = (dechunk, by_close);
                    if let End::Close = self.carry_down(account, room, body, &mut buf, how, &mut clean).await? {
                        break;
                    }
                }
            }
        }
        self.client.state.bodies.give(buf);
        Ok(clean)
    }

    async fn pour_down(&self, account: &mut Account<'_>, body: &mut Body, left: u64) -> Result<(), Dry> {
        let state = self.client.state;
        let patience = Patience { within: state.timeouts().body, until: self.until };
        let mut meter = Download { delivery: self, account, body };
        pour(self.origin, self.client.stream, &state.pipes, left, patience, &mut meter).await
    }

    /// Receives one piece of the answer's body and sends it on.
    async fn carry_down(
        &self,
        account: &mut Account<'_>,
        room: &mut Room,
        body: &mut Body,
        buf: &mut Vec<u8>,
        (dechunk, by_close): (bool, bool),
        clean: &mut bool,
    ) -> Result<End, Stop> {
        let state = self.client.state;
        if buf.capacity() == 0 {
            *buf = state.bodies.take();
        }
        buf.clear();
        let deadline = state.deadlines.after(state.timeouts().body).or_earlier(self.until);
        let (received, back) = self.origin.recv(std::mem::take(buf), deadline, Wait::Soon).await;
        *buf = back;
        match received {
            Ok(0) if body.ends_by_close() => return Ok(End::Close),
            Ok(count) if count > 0 => {}
            ended => return Err(origin_cut(ended.err(), by_close)),
        }
        let taken = if dechunk {
            room.out.clear();
            let taken = body.take_payload(buf, &mut room.out);
            std::mem::swap(buf, &mut room.out);
            taken.map(|taken| (taken, taken.bytes == room.out.len()))
        } else {
            body.take(buf).map(|taken| (taken, taken.bytes == buf.len()))
        };
        // Nobody knows what the bytes mean from here on: the answer cannot end well.
        let (taken, all) = taken.map_err(|_| origin_cut(None, by_close))?;
        *clean &= all;
        if !dechunk {
            buf.truncate(taken.kept);
        }
        let (sent, back) = self.client.stream.send(std::mem::take(buf), 0, state.timeouts().body).await;
        *buf = back;
        sent.map_err(|error| client_cut(&error, by_close))?;
        account.ended.download += taken.payload;
        account.update(account.ended.upload + self.gate.upload.get(), account.ended.download);
        Ok(End::None)
    }
}

/// How a request's body goes on.
struct Way {
    /// The origin has not refused to take it.
    origin_takes: bool,
    /// There are pipes to be had.
    pipes: bool,
    /// Something has arrived that must be received before the rest can be poured.
    carry_first: bool,
}

impl Way {
    fn is_open(&self) -> bool {
        self.origin_takes && self.pipes && !self.carry_first
    }
}

enum End {
    None,
    /// The origin closed, which is where the body ends.
    Close,
}

struct Upload<'a, 'b> {
    delivery: &'a Delivery<'b>,
    body: &'a mut Body,
}

impl Meter for Upload<'_, '_> {
    fn taken(&mut self, bytes: u64) {
        self.body.passed(bytes);
        let upload = &self.delivery.gate.upload;
        upload.set(upload.get() + bytes);
    }

    fn given(&mut self, _: u64) {
        self.delivery.put_answer_off();
    }
}

struct Download<'a, 'b, 'c> {
    delivery: &'a Delivery<'b>,
    account: &'a mut Account<'c>,
    body: &'a mut Body,
}

impl Meter for Download<'_, '_, '_> {
    fn taken(&mut self, bytes: u64) {
        self.body.passed(bytes);
    }

    fn given(&mut self, bytes: u64) {
        let account = &mut self.account;
        account.ended.download += bytes;
        account.update(account.ended.upload + self.delivery.gate.upload.get(), account.ended.download);
    }
}
