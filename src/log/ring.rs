//! Slot numbers on their way between one core and the writer: one side pushes, the other pops.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// A ring with one producer and one consumer, as large as there are slots, so that it is never full.
///
/// Invariant: `popped <= pushed <= popped + places.len()`.
pub struct Ring {
    places: Box<[AtomicU32]>,
    pushed: Line,
    popped: Line,
}

/// A counter on a cache line of its own: the two sides do not slow each other.
#[repr(align(64))]
struct Line(AtomicUsize);

impl Ring {
    /// A ring for at least `places` numbers.
    pub fn new(places: u32) -> Ring {
        let places = (places as usize).next_power_of_two();
        let line = || Line(AtomicUsize::new(0));
        Ring { places: (0..places).map(|_| AtomicU32::new(0)).collect(), pushed: line(), popped: line() }
    }

    /// Pushes a number; what the producer stored before is seen by the consumer that pops it.
    pub fn push(&self, number: u32) {
        let pushed = self.pushed.0.load(Ordering::Relaxed);
        self.places[pushed & (self.places.len() - 1)].store(number, Ordering::Relaxed);
        self.pushed.0.store(pushed.wrapping_add(1), Ordering::Release);
    }

    /// How many numbers are on their way: as it was when it was asked, from any thread.
    pub fn waiting(&self) -> usize {
        let popped = self.popped.0.load(Ordering::Acquire);
        self.pushed.0.load(Ordering::Acquire).wrapping_sub(popped)
    }

    /// The number that the next [`Ring::pop`] answers, if it is there already. For the side that pops.
    pub fn next(&self) -> Option<u32> {
        let popped = self.popped.0.load(Ordering::Relaxed);
        let there = popped != self.pushed.0.load(Ordering::Acquire);
        there.then(|| self.places[popped & (self.places.len() - 1)].load(Ordering::Relaxed))
    }

    /// Pops the oldest number.
    pub fn pop(&self) -> Option<u32> {
        let popped = self.popped.0.load(Ordering::Relaxed);
        if popped == self.pushed.0.load(Ordering::Acquire) {
            return None;
        }
        let number = self.places[popped & (self.places.len() - 1)].load(Ordering::Relaxed);
        self.popped.0.store(popped.wrapping_add(1), Ordering::Release);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_pass_between_two_threads_in_order() {
        let ring = Ring::new(1000);
        let back = Ring::new(1000);
        (0..1000).for_each(|number| back.push(number));
        assert_eq!((back.next(), back.next(), ring.next()), (Some(0), Some(0), None));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200_000 {
                    let number = loop {
                        match back.pop() {
                            Some(number) => break number,
                            None => std::thread::yield_now(),
                        }
                    };
                    ring.push(number);
                }
            });
            let mut seen = 0;
            while seen < 200_000 {
                match ring.pop() {
                    Some(number) => {
                        assert_eq!(number, seen % 1000);
                        back.push(number);
                        seen += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    }
}
