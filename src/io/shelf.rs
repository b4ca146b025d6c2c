//! Room for futures that are big and short-lived: an exchange's, beside a connection's, which waits most of its life.
//!
//! Whoever waits for a request should not hold the memory that serving one takes. So the exchange's future has a block of its
//! own while it lives, from a shelf of its core: the one used last first, so that it is in the processor's cache.

use super::ahead::Block;
use crate::limits::EXCHANGES_SHELVED_MAX;
use std::alloc::Layout;
use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::Context;
use std::task::Poll;

/// A bounded stock of blocks of one size: that of the first future placed. Others are placed all the same, in blocks that are
/// not kept.
#[derive(Default)]
pub struct Shelf {
    layout: Cell<Option<Layout>>,
    free: RefCell<Vec<NonNull<u8>>>,
    /// How many have lain here all the time since the last [`Shelf::shed`].
    unneeded: Cell<usize>,
}

/// A future in a block of a shelf.
pub struct Placed<'a, F> {
    future: NonNull<F>,
    shelf: &'a Shelf,
    owns: PhantomData<F>,
}

impl Shelf {
    /// Has the future that `make` makes live in a block of this shelf, to its end.
    #[inline]
    pub fn place<F: Future>(&self, make: impl FnOnce() -> F) -> Placed<'_, F> {
        const { assert!(size_of::<F>() > 0) };
        let block = self.block(Layout::new::<F>()).cast::<F>();
        // JUSTIFICATION: a `Box` would ask the allocator for every exchange.
        // SAFETY: the block has the layout of `F` and is nobody else's. If `make` panics, the block is lost, no more.
        unsafe { block.write(make()) };
        Placed { future: block, shelf: self, owns: PhantomData }
    }

    fn block(&self, layout: Layout) -> NonNull<u8> {
        if self.layout.get() == Some(layout) {
            let mut free = self.free.borrow_mut();
            let taken = free.pop();
            self.unneeded.set(self.unneeded.get().min(free.len()));
            if let Some(block) = taken {
                return block;
            }
        } else if self.layout.get().is_none() {
            self.layout.set(Some(layout));
        }
        // JUSTIFICATION: blocks outlive the futures in them, which differ.
        // SAFETY: the layout has a size (see `place`).
        let block = unsafe { std::alloc::alloc(layout) };
        NonNull::new(block).unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
    }

    /// Takes a block of this layout back.
    fn give(&self, block: NonNull<u8>, layout: Layout) {
        let mut free = self.free.borrow_mut();
        if self.layout.get() == Some(layout) && free.len() < EXCHANGES_SHELVED_MAX {
            return free.push(block);
        }
        // JUSTIFICATION: as in `block`.
        // SAFETY: `block` allocated it with this layout, and nobody uses it any more.
        unsafe { std::alloc::dealloc(block.as_ptr(), layout) };
    }

    /// Frees what nobody has needed since the last call: the memory of a peak goes back.
    pub fn shed(&self) {
        let Some(layout) = self.layout.get() else { return };
        let mut free = self.free.borrow_mut();
        let keep = free.len() - self.unneeded.get().min(free.len());
        for block in free.drain(keep..) {
            // JUSTIFICATION: as in `block`.
            // SAFETY: blocks kept here were allocated with the shelf's layout and are nobody's.
            unsafe { std::alloc::dealloc(block.as_ptr(), layout) };
        }
        self.unneeded.set(free.len());
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.unneeded.set(usize::MAX);
        self.shed();
    }
}

// Where the future is does not change when this moves.
impl<F> Unpin for Placed<'_, F> {}

impl<F: Future> Future for Placed<'_, F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let block = Block::of(self.future.as_ptr());
        // JUSTIFICATION: this is what a pinned `Box` does.
        // SAFETY: the future lives in its block, which does not move, until this is dropped; nobody else refers to it.
        let future = unsafe { Pin::new_unchecked(self.future.as_mut()) };
        block.during(|| future.poll(cx))
    }
}

impl<F> Drop for Placed<'_, F> {
    #[inline]
    fn drop(&mut self) {
        // JUSTIFICATION: as in `place`.
        // SAFETY: `place` put a future there, and this is its end.
        unsafe { self.future.drop_in_place() };
        self.shelf.give(self.future.cast(), Layout::new::<F>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::task::Waker;

    fn poll<F: Future>(placed: &mut Placed<'_, F>) -> Poll<F::Output> {
        Pin::new(placed).poll(&mut Context::from_waker(Waker::noop()))
    }

    async fn twice(held: Rc<()>) -> usize {
        tokio::task::yield_now().await;
        Rc::strong_count(&held)
    }

    #[test]
    fn a_future_lives_in_a_block_that_the_next_one_gets() {
        let (shelf, held) = (Shelf::default(), Rc::new(()));
        let mut first = shelf.place(|| twice(Rc::clone(&held)));
        let block = first.future;
        assert_eq!(poll(&mut first), Poll::Pending);
        assert_eq!(poll(&mut first), Poll::Ready(2));
        drop(first);
        assert_eq!(Rc::strong_count(&held), 1, "what a finished future held is dropped");
        let mut again = shelf.place(|| twice(Rc::clone(&held)));
        assert_eq!(again.future, block);
        assert_eq!(poll(&mut again), Poll::Pending);
        drop(again);
        assert_eq!(Rc::strong_count(&held), 1, "and what a broken off one held");
    }

    #[test]
    fn a_future_of_another_size_is_placed_but_its_block_not_kept_and_a_peak_goes() {
        let shelf = Shelf::default();
        let many: Vec<_> = (0..5).map(|number| shelf.place(move || std::future::ready(number))).collect();
        drop(many);
        let mut other = shelf.place(|| std::future::ready([7; 9]));
        assert_eq!(poll(&mut other), Poll::Ready([7; 9]));
        drop(other);
        assert_eq!(shelf.free.borrow().len(), 5);
        shelf.shed();
        drop((shelf.place(|| std::future::ready(1)), shelf.place(|| std::future::ready(2))));
        shelf.shed();
        assert_eq!(shelf.free.borrow().len(), 2, "three were not needed");
        shelf.shed();
        assert_eq!(shelf.free.borrow().len(), 0);
    }
}
