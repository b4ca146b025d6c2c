//! Resumption tickets of the cluster's port (RFC 8446 section 4.6.1): a thousand slaves that come back after the master's
//! restart are known again without a certificate being checked or anything being signed.
//!
//! Tickets are sealed by keys that grow from the activation key and the time, so that the next process, too, can open them;
//! nothing is kept. Who holds the activation key could open them as well, and could make himself a certificate just so. The
//! traffic stays secret from him: resumed sessions exchange fresh keys (psk_dhe_ke, the one mode rustls has).

use crate::base::clock::Wall;
use crate::limits::CLUSTER_TICKET_LIFE_S;
use crate::tls::activation::ActivationKey;
use aws_lc_rs::aead::AES_256_GCM;
use aws_lc_rs::aead::Aad;
use aws_lc_rs::aead::RandomizedNonceKey;
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Seals and opens tickets.
pub(super) struct Tickets {
    key: ActivationKey,
    /// The keys used last: of this period and of the one before.
    sealers: Mutex<Vec<(i64, RandomizedNonceKey)>>,
    now: fn() -> Wall,
}

impl Tickets {
    pub(super) fn new(key: &ActivationKey) -> Tickets {
        Tickets { key: key.clone(), sealers: Mutex::default(), now: Wall::now }
    }

    fn period(&self) -> i64 {
        (self.now)().seconds().div_euclid(CLUSTER_TICKET_LIFE_S)
    }

    /// Does something with the key of a period.
    fn with<T>(&self, period: i64, work: impl FnOnce(&RandomizedNonceKey) -> Option<T>) -> Option<T> {
        let mut sealers = self.sealers.lock().unwrap_or_else(PoisonError::into_inner);
        if !sealers.iter().any(|(of, _)| *of == period) {
            let seed = self.key.ticket_seed(period).ok()?;
            sealers.retain(|(of, _)| period.abs_diff(*of) <= 1);
            sealers.push((period, RandomizedNonceKey::new(&AES_256_GCM, &seed).ok()?));
        }
        sealers.iter().find(|(of, _)| *of == period).and_then(|(_, sealer)| work(sealer))
    }
}

const PERIOD_BYTES: usize = 8;

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        CLUSTER_TICKET_LIFE_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let period = self.period();
        let mut sealed = plain.to_vec();
        let nonce = self.with(period, |key| key.seal_in_place_append_tag(aad(period), &mut sealed).ok())?;
        Some([&period.to_be_bytes(), nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (period, rest) = cipher.split_first_chunk::<PERIOD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<{ aws_lc_rs::aead::NONCE_LEN }>()?;
        let period = i64::from_be_bytes(*period);
        // Of this period or the one before: no key is derived for another.
        if !(0..=1).contains(&(self.period().checked_sub(period)?)) {
            return None;
        }
        let mut opened = sealed.to_vec();
        let length = self.with(period, |key| {
            key.open_in_place(nonce.into(), aad(period), &mut opened).ok().map(|plain| plain.len())
        })?;
        opened.truncate(length);
        Some(opened)
    }
}

fn aad(period: i64) -> Aad<[u8; PERIOD_BYTES]> {
    Aad::from(period.to_be_bytes())
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000 / CLUSTER_TICKET_LIFE_S * CLUSTER_TICKET_LIFE_S;

    fn at(key: &ActivationKey, now: fn() -> Wall) -> Tickets {
        Tickets { now, ..Tickets::new(key) }
    }

    #[test]
    fn a_ticket_is_opened_by_the_next_process_for_a_while_and_by_nobody_without_the_key() {
        let key = ActivationKey::generate().unwrap();
        let now = at(&key, || Wall(NOON * 1_000_000));
        let ticket = now.encrypt(b"session").unwrap();
        assert!(!ticket.windows(7).any(|bytes| bytes == b"session"));
        for (process, opens) in [
            (at(&key, || Wall(NOON * 1_000_000)), true),
            (at(&key, || Wall((NOON + 2 * CLUSTER_TICKET_LIFE_S - 1) * 1_000_000)), true),
            (at(&key, || Wall((NOON + 2 * CLUSTER_TICKET_LIFE_S) * 1_000_000)), false),
            (at(&key, || Wall((NOON - 1) * 1_000_000)), false),
            (at(&ActivationKey::generate().unwrap(), || Wall(NOON * 1_000_000)), false),
        ] {
            assert_eq!(process.decrypt(&ticket), opens.then(|| b"session".to_vec()));
        }
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(now.decrypt(&damaged), None, "byte {at}");
            assert_eq!(now.decrypt(&ticket[..at]), None);
        }
    }
}
