//! The core's buffers: taken when bytes are about to move, given back when they have.

use crate::limits::BUFFERS_KEPT_MIN;
use std::cell::Cell;
use std::cell::RefCell;

/// A bounded stock of buffers of one size. More are made when it is empty; what does not fit back is freed.
pub struct Buffers {
    size: usize,
    most: usize,
    stock: RefCell<Vec<Vec<u8>>>,
    /// How many have lain in stock all the time since the last [`Buffers::shed`].
    unneeded: Cell<usize>,
}

impl Buffers {
    /// A stock that keeps up to `most` buffers of `size` bytes.
    pub fn new(size: usize, most: usize) -> Buffers {
        Buffers { size, most, stock: RefCell::default(), unneeded: Cell::new(0) }
    }

    /// An empty buffer with room for at least the stock's size.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        let mut stock = self.stock.borrow_mut();
        let taken = stock.pop();
        self.unneeded.set(self.unneeded.get().min(stock.len()));
        taken.unwrap_or_else(|| Vec::with_capacity(self.size))
    }

    /// Frees what nobody has needed since the last call: the memory of a peak goes back.
    pub fn shed(&self) {
        let mut stock = self.stock.borrow_mut();
        let keep = (stock.len() - self.unneeded.get()).max(BUFFERS_KEPT_MIN);
        stock.truncate(keep);
        self.unneeded.set(stock.len());
    }

    /// Takes a buffer back. One that was grown or is too many is freed.
    #[inline]
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut stock = self.stock.borrow_mut();
        if buffer.capacity() >= self.size && buffer.capacity() <= self.size * 2 && stock.len() < self.most {
            buffer.clear();
            stock.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_the_stock_is_bounded() {
        let buffers = Buffers::new(64, 1);
        let mut one = buffers.take();
        one.extend_from_slice(b"used");
        let address = one.as_ptr();
        let two = buffers.take();
        buffers.give(one);
        buffers.give(two);
        let again = buffers.take();
        assert!(again.is_empty() && again.as_ptr() == address);
        assert_eq!(buffers.stock.borrow().len(), 0, "the second was freed");
        buffers.give(vec![0; 4096]);
        assert_eq!(buffers.stock.borrow().len(), 0, "a grown one is freed");
    }

    #[test]
    fn what_a_peak_needed_is_freed_when_it_is_over() {
        let buffers = Buffers::new(64, 1000);
        let peak: Vec<Vec<u8>> = (0..300).map(|_| buffers.take()).collect();
        peak.into_iter().for_each(|buffer| buffers.give(buffer));
        buffers.shed();
        assert_eq!(buffers.stock.borrow().len(), 300, "needed a moment ago");
        let busy: Vec<Vec<u8>> = (0..100).map(|_| buffers.take()).collect();
        busy.into_iter().for_each(|buffer| buffers.give(buffer));
        buffers.shed();
        assert_eq!(buffers.stock.borrow().len(), 100);
        buffers.shed();
        assert_eq!(buffers.stock.borrow().len(), BUFFERS_KEPT_MIN);
    }
}
