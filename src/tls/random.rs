//! Random bytes and comparison in constant time, for whoever needs a secret: the cryptography library has one door.

use aws_lc_rs::constant_time;
use aws_lc_rs::rand;

/// `N` bytes from the operating system's random generator.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    // The generator is seeded from the kernel at process start; a machine on which that fails cannot do TLS either, and a
    // predictable secret would be worse than no answer.
    rand::fill(&mut out).expect("the random generator failed: the kernel gave no entropy");
    out
}

/// Whether `a` equals `b`, in a time that depends on their lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ_and_equal_tells_them_apart() {
        let (one, two) = (bytes::<32>(), bytes::<32>());
        assert!(equal(&one, &one));
        assert!(!equal(&one, &two));
        assert!(!equal(&one, &one[..31]));
        assert!(equal(b"", b""));
    }
}
