//! The core's pipes: lent while bytes are on their way through the kernel, kept for the next.

use crate::limits::PIPE_BYTES_MIN;
use crate::limits::PIPE_LONG_BYTES;
use crate::limits::PIPES_KEPT_MAX;
use crate::limits::PIPES_LENT_MAX;
use crate::limits::PIPES_LONG_MAX;
use crate::sys::pipes::Pipe;
use std::cell::Cell;
use std::cell::RefCell;
use std::io;

/// The core's pipes, all of them empty.
#[derive(Default)]
pub struct Pipes {
    kept: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
    long: Cell<usize>,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        match self.kept.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    fn give(&self, pipe: Pipe) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < PIPES_KEPT_MAX {
            kept.push(pipe);
        }
    }

    /// Whether one more body may have a pipe; without, it goes through buffers.
    pub(super) fn has_one_more(&self) -> bool {
        self.lent.get() < PIPES_LENT_MAX
    }
}

/// One way's pipe, held only while bytes are on their way: a tunnel that rests keeps two descriptors, not six.
pub(super) struct Loan<'a> {
    pipes: &'a Pipes,
    pipe: Option<Pipe>,
    long: bool,
}

impl Loan<'_> {
    pub(super) fn new(pipes: &Pipes) -> Loan<'_> {
        Loan { pipes, pipe: None, long: false }
    }

    pub(super) fn pipe(&mut self) -> io::Result<&Pipe> {
        if self.pipe.is_none() {
            self.pipe = Some(self.pipes.take()?);
            self.pipes.lent.set(self.pipes.lent.get() + 1);
        }
        Ok(self.pipe.as_ref().expect("taken above"))
    }

    /// Whether there is a pipe, and one of use: a user who has spent the allowance of pipe pages gets pipes of two pages.
    pub(super) fn is_usable(&mut self) -> bool {
        self.pipe().is_ok_and(|pipe| pipe.size() >= PIPE_BYTES_MIN)
    }

    /// Gives the pipe, which is empty, back. A long one stays with its stream: growing it again would cost more.
    pub(super) fn rest(&mut self) {
        if !self.long
            && let Some(pipe) = self.give_back()
        {
            self.pipes.give(pipe);
        }
    }

    /// Makes the pipe a long one, if not too many are: the kernel gives a user so many pipe pages.
    pub(super) fn lengthen(&mut self) {
        if !self.long
            && self.pipes.long.get() < PIPES_LONG_MAX
            && let Some(pipe) = &mut self.pipe
        {
            self.pipes.long.set(self.pipes.long.get() + 1);
            self.long = true;
            pipe.grow(PIPE_LONG_BYTES);
        }
    }

    fn give_back(&mut self) -> Option<Pipe> {
        let pipe = self.pipe.take()?;
        self.pipes.lent.set(self.pipes.lent.get() - 1);
        Some(pipe)
    }
}

/// Bytes left in a pipe must not reach another stream, so a pipe that was not given back goes.
impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.give_back();
        if self.long {
            self.pipes.long.set(self.pipes.long.get() - 1);
        }
    }
}
