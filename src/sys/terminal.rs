//! Reading a secret from a terminal without showing it.

use nix::sys::termios::LocalFlags;
use nix::sys::termios::SetArg;
use nix::sys::termios::Termios;
use nix::sys::termios::tcgetattr;
use nix::sys::termios::tcsetattr;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;

/// Asks on the controlling terminal and reads one line of at most `bytes_max` bytes with echo off.
pub fn read_secret(prompt: &str, bytes_max: usize) -> io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(prompt.as_bytes())?;
    let line = {
        let _quiet = Quiet::start(&terminal)?;
        let mut line = String::new();
        BufReader::new((&terminal).take(bytes_max as u64 + 1)).read_line(&mut line)?;
        line
    };
    terminal.write_all(b"\n")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}

/// A terminal with echo off; dropping it gives the terminal back as it was.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn start(terminal: &'a File) -> io::Result<Quiet<'a>> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing can be done if this fails but to let the user type `stty echo`.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
