//! Which nodes changed lately, so that whoever keeps a copy of them need not look at each.
//!
//! Derived: no row holds it, and replicas need not agree on it.

use std::collections::VecDeque;

/// Changes remembered. Source: a round of planning makes up to 2,048 placements, two changes each, and frees
/// as much: eight rounds; 256 KiB.
const REMEMBERED: usize = 65_536;

/// The last changes, in order, by the nodes' short names.
#[derive(Default)]
pub(crate) struct Touched {
    nodes: VecDeque<u32>,
    /// Changes before the first that is remembered.
    forgotten: u64,
    /// Counts what cannot be told by touching a node: states loaded anew, and nodes that went.
    origin: u64,
}

/// Up to where somebody has seen the changes of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchMark {
    origin: u64,
    seen: u64,
}

impl Touched {
    /// Of a state that was loaded when the log was at `index`.
    pub fn loaded(index: u64) -> Self {
        // An entry removes fewer nodes than a million.
        let origin = index << 20;
        Self {
            origin,
            ..Self::default()
        }
    }

    pub fn add(&mut self, node: u32) {
        if self.nodes.len() >= REMEMBERED {
            self.nodes.pop_front();
            self.forgotten += 1;
        }
        self.nodes.push_back(node);
    }

    /// A node went: everything is to be looked at again.
    pub fn gone(&mut self) {
        self.origin += 1;
    }

    pub fn mark(&self) -> TouchMark {
        TouchMark {
            origin: self.origin,
            seen: self.forgotten + self.nodes.len() as u64,
        }
    }

    /// Those touched since, oldest first, some more than once; `None` where it is not known any more.
    pub fn since(&self, mark: TouchMark) -> Option<impl Iterator<Item = u32> + '_> {
        if mark.origin != self.origin {
            return None;
        }
        let skip = mark.seen.checked_sub(self.forgotten)?;
        Some(self.nodes.iter().skip(skip as usize).copied())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_changed_is_told_until_it_is_too_long_ago() {
        let mut touched = Touched::loaded(7);
        let begin = touched.mark();
        touched.add(1);
        let middle = touched.mark();
        touched.add(2);
        touched.add(2);
        let since = |touched: &Touched, mark| touched.since(mark).map(|n| n.collect::<Vec<_>>());
        assert_eq!(since(&touched, begin), Some(vec![1, 2, 2]));
        assert_eq!(since(&touched, middle), Some(vec![2, 2]));
        assert_eq!(since(&touched, touched.mark()), Some(vec![]));
        (0..REMEMBERED as u32 - 2).for_each(|n| touched.add(n));
        assert_eq!(since(&touched, begin), None);
        assert_eq!(since(&touched, middle).unwrap().len(), REMEMBERED);
        touched.gone();
        assert_eq!(since(&touched, touched.mark()), Some(vec![]));
        assert_eq!(since(&touched, middle), None);
        assert_eq!(since(&Touched::loaded(8), middle), None);
    }
}
