//! Pipes and splice(2): bytes that go from socket to socket without entering user space.

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::SpliceFFlags;
use nix::fcntl::fcntl;
use nix::fcntl::splice;
use nix::unistd::pipe2;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

/// A pipe used as a buffer in the kernel.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    /// A pipe of the kernel's usual size, neither end of which blocks.
    pub fn new() -> io::Result<Pipe> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let size = fcntl(&write, FcntlArg::F_GETPIPE_SZ)?.max(0) as usize;
        Ok(Pipe { read, write, size })
    }

    /// How many bytes it can hold.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Asks for a pipe of `size` bytes. A refusal (the user's allowance of pipe pages is spent) leaves it as it was.
    pub fn grow(&mut self, size: usize) {
        if size > self.size
            && let Ok(granted) = fcntl(&self.write, FcntlArg::F_SETPIPE_SZ(size as i32))
        {
            self.size = granted.max(0) as usize;
        }
    }

    /// Moves up to `most` bytes from `from` into the pipe. `Ok(0)` is the end of the stream.
    pub fn fill(&self, from: impl AsFd, most: usize) -> io::Result<usize> {
        Ok(splice(from, None, &self.write, None, most, SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK)?)
    }

    /// Moves up to `most` bytes from the pipe to `to`; `more` says that further bytes follow at once.
    pub fn drain(&self, to: impl AsFd, most: usize, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        if more {
            flags |= SpliceFFlags::SPLICE_F_MORE;
        }
        Ok(splice(&self.read, None, to, None, most, flags)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_through_a_pipe_from_socket_to_socket() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let (c, mut d) = UnixStream::pair().unwrap();
        let mut pipe = Pipe::new().unwrap();
        pipe.grow(256 * 1024);
        assert!(pipe.size() >= 64 * 1024, "grown to {}", pipe.size());
        a.write_all(b"through the kernel").unwrap();
        assert_eq!(pipe.fill(&b, 1024).unwrap(), 18);
        assert_eq!(pipe.drain(&c, 18, false).unwrap(), 18);
        let mut got = [0; 18];
        d.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"through the kernel");
        assert_eq!(pipe.drain(&c, 1, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(pipe.fill(&b, 1024).unwrap(), 0, "the end of the stream shows as 0");
    }
}
