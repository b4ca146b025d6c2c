//! Writing a line piece by piece into room that is large enough: no piece asks for memory or calls out to copy three bytes.

use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;

/// What one piece may touch behind its end.
pub const SLACK: usize = 4;

/// The digits of the numbers below 100, two each.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

/// The numbers below 256, each followed by a dot (and what is left of its four bytes).
const OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[b'.'; 4]; 256];
    let mut number = 0;
    while number < 256 {
        let digits = [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let first = 3 - octet_digits(number as u8);
        let mut at = first;
        while at < 3 {
            octets[number][at - first] = digits[at];
            at += 1;
        }
        number += 1;
    }
    octets
};

const fn octet_digits(number: u8) -> usize {
    1 + (number >= 10) as usize + (number >= 100) as usize
}

/// A place in the room that moves on with what is written. Whoever makes one sees to the room: pieces, and [`SLACK`]
/// behind the last.
pub struct Pen<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl<'a> Pen<'a> {
    /// A pen at the beginning of `room`.
    pub fn new(room: &'a mut [u8]) -> Pen<'a> {
        Pen { room, at: 0 }
    }

    /// What was written.
    pub fn written(self) -> &'a [u8] {
        &self.room[..self.at]
    }

    /// Bytes of any number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.room[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Bytes whose number is known when compiling.
    #[inline(always)]
    pub fn fixed<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room[self.at..self.at + N].copy_from_slice(bytes);
        self.at += N;
    }

    /// What stands between two values.
    #[inline(always)]
    pub fn next(&mut self) {
        self.fixed(b"\"\t\"");
    }

    /// A number.
    #[inline]
    pub fn number(&mut self, mut value: u64) {
        let digits = 1 + value.checked_ilog10().unwrap_or(0) as usize;
        let place = &mut self.room[self.at..self.at + digits];
        self.at += digits;
        // Straight to their place: to gather them elsewhere and load them as one piece would wait for the stores.
        let mut end = digits;
        while end >= 2 {
            place[end - 2..end].copy_from_slice(&PAIRS[(value % 100) as usize]);
            value /= 100;
            end -= 2;
        }
        if end == 1 {
            place[0] = b'0' + value as u8;
        }
    }

    /// A number below a million, in six digits.
    pub fn six_digits(&mut self, value: u32) {
        for two in [value / 10_000 % 100, value / 100 % 100, value % 100] {
            self.fixed(&PAIRS[two as usize]);
        }
    }

    /// An address.
    #[inline]
    pub fn address(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                for octet in ip.octets() {
                    self.room[self.at..self.at + 4].copy_from_slice(&OCTETS[usize::from(octet)]);
                    self.at += octet_digits(octet) + 1;
                }
                self.at -= 1; // the last dot
            }
            IpAddr::V6(ip) => {
                let mut text = [0; 64];
                let mut rest = &mut text[..];
                let _ = write!(rest, "{ip}"); // it has at most 45 bytes
                let length = 64 - rest.len();
                self.bytes(&text[..length]);
            }
        }
    }

    /// `IP:PORT`, IPv6 in brackets.
    pub fn endpoint(&mut self, endpoint: SocketAddr) {
        let bracketed = endpoint.is_ipv6();
        if bracketed {
            self.fixed(b"[");
        }
        self.address(endpoint.ip());
        if bracketed {
            self.fixed(b"]");
        }
        self.fixed(b":");
        self.number(u64::from(endpoint.port()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Pen)) -> String {
        let mut room = [0; 200];
        let mut pen = Pen::new(&mut room);
        write(&mut pen);
        String::from_utf8(pen.written().to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_are_spelt_as_the_library_spells_them(
            number in any::<u64>(), digits in 0u32..64, four in any::<[u8; 4]>(), six in any::<[u16; 8]>(), port in any::<u16>(),
        ) {
            let number = number >> digits;
            prop_assert_eq!(written(|pen| pen.number(number)), number.to_string());
            prop_assert_eq!(written(|pen| pen.six_digits(port.into())), format!("{port:06}"));
            for ip in [IpAddr::from(four), IpAddr::from(six)] {
                prop_assert_eq!(written(|pen| pen.address(ip)), ip.to_string());
                let endpoint = SocketAddr::new(ip, port);
                prop_assert_eq!(written(|pen| pen.endpoint(endpoint)), endpoint.to_string());
            }
        }
    }

    #[test]
    fn every_number_of_few_digits_is_spelt_right() {
        (0..100_100).for_each(|number| assert_eq!(written(|pen| pen.number(number)), number.to_string()));
        let widest = IpAddr::from([0xffff; 8]);
        assert_eq!(written(|pen| pen.address(widest)), widest.to_string());
        assert_eq!(written(|pen| pen.number(u64::MAX)), u64::MAX.to_string());
    }
}
