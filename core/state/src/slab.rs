//! A slab with 32-bit handles, in pages, so that growth neither doubles memory nor copies.

/// Items a page. Source: a page of tasks is then about 100 KiB, small against the whole and large
/// against an allocation.
const PAGE: usize = 1024;

/// Items by handle. A handle is valid until its item is removed; then it may be given again.
pub(crate) struct Slab<T> {
    pages: Vec<Vec<Slot<T>>>,
    free: u32,
    len: u32,
}

enum Slot<T> {
    Free(u32),
    Used(T),
}

/// No handle.
pub(crate) const NONE: u32 = u32::MAX;

impl<T> Slab<T> {
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// *Panics*: at 2³² − 1 items, which the bounds on live tasks and sessions keep far away.
    pub fn insert(&mut self, item: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let handle = self.free;
            let slot = &mut self.pages[handle as usize / PAGE][handle as usize % PAGE];
            if let Slot::Free(next) = slot {
                self.free = *next;
            }
            *slot = Slot::Used(item);
            return handle;
        }
        if self.pages.last().is_none_or(|p| p.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let page = self.pages.len() - 1;
        let handle = page * PAGE + self.pages[page].len();
        self.pages[page].push(Slot::Used(item));
        u32::try_from(handle).expect("live items are bounded far below 2^32")
    }

    pub fn get(&self, handle: u32) -> Option<&T> {
        match self
            .pages
            .get(handle as usize / PAGE)?
            .get(handle as usize % PAGE)?
        {
            Slot::Used(item) => Some(item),
            Slot::Free(_) => None,
        }
    }

    pub fn get_mut(&mut self, handle: u32) -> Option<&mut T> {
        match self
            .pages
            .get_mut(handle as usize / PAGE)?
            .get_mut(handle as usize % PAGE)?
        {
            Slot::Used(item) => Some(item),
            Slot::Free(_) => None,
        }
    }

    pub fn remove(&mut self, handle: u32) -> Option<T> {
        let slot = self
            .pages
            .get_mut(handle as usize / PAGE)?
            .get_mut(handle as usize % PAGE)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let taken = std::mem::replace(slot, Slot::Free(self.free));
        self.free = handle;
        self.len -= 1;
        match taken {
            Slot::Used(item) => Some(item),
            Slot::Free(_) => None,
        }
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, handle: u32) -> &T {
        self.get(handle)
            .expect("a handle kept in an index names a live item")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, handle: u32) -> &mut T {
        self.get_mut(handle)
            .expect("a handle kept in an index names a live item")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_given_again_only_after_removal() {
        let mut slab = Slab::new();
        let handles: Vec<u32> = (0..3000).map(|i| slab.insert(i)).collect();
        assert_eq!(slab.remove(handles[5]), Some(5));
        assert_eq!(slab.remove(handles[5]), None);
        assert_eq!(slab.remove(handles[2000]), Some(2000));
        assert_eq!((slab.get(handles[5]), slab.len()), (None, 2998));
        assert_eq!(
            (slab.insert(7), slab.insert(8)),
            (handles[2000], handles[5])
        );
        assert_eq!(slab[handles[5]], 8);
        assert_eq!(slab.len(), 3000);
        assert!(slab.get(NONE).is_none());
    }
}
