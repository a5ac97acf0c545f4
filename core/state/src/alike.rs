//! Texts and lists that nodes of one kind have in common, kept once.
//!
//! Derived: no row holds it, and replicas need not agree on it.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;

use farlane_model::{Interpreter, NodeSpec};

/// Different values remembered of each sort. Source: some tens of machine types and images make most networks;
/// a node beyond it keeps its own, at about 600 bytes.
const REMEMBERED: usize = 1024;

/// What was seen before.
#[derive(Default)]
pub(crate) struct Alike {
    texts: BTreeSet<Arc<str>>,
    interpreters: BTreeSet<Arc<[Interpreter]>>,
    enforced: BTreeSet<Arc<[String]>>,
    labels: BTreeSet<Arc<[(String, String)]>>,
}

impl Alike {
    /// Reads canonical bytes; `None` where they are no spec.
    pub fn spec(&mut self, bytes: &[u8]) -> Option<Arc<NodeSpec>> {
        let mut spec = NodeSpec::from_canonical(bytes)?;
        let texts = [
            &mut spec.cpu_model,
            &mut spec.os,
            &mut spec.arch,
            &mut spec.agent,
        ];
        texts
            .into_iter()
            .for_each(|text| share(&mut self.texts, text));
        share(&mut self.interpreters, &mut spec.interpreters);
        share(&mut self.enforced, &mut spec.enforced);
        share(&mut self.labels, &mut spec.labels);
        Some(Arc::new(spec))
    }

    /// A text that others may have too.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        let mut text = text.into();
        share(&mut self.texts, &mut text);
        text
    }
}

/// Puts what was seen before in the place of what equals it.
fn share<T: Ord + ?Sized>(seen: &mut BTreeSet<Arc<T>>, one: &mut Arc<T>) {
    if let Some(same) = seen.get::<T>((**one).borrow()) {
        *one = same.clone();
        return;
    }
    if seen.len() >= REMEMBERED {
        seen.retain(|kept| Arc::strong_count(kept) > 1);
    }
    if seen.len() < REMEMBERED {
        seen.insert(one.clone());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equals_are_kept_once_and_what_nobody_has_is_forgotten() {
        let mut alike = Alike::default();
        let (one, other) = (alike.text("eu-north"), alike.text("eu-north"));
        assert!(Arc::ptr_eq(&one, &other));
        let kept: Vec<Arc<str>> = (1..REMEMBERED)
            .map(|n| alike.text(&n.to_string()))
            .collect();
        // Full of what somebody has: one more is not remembered, and is right all the same.
        assert_eq!(&*alike.text("new"), "new");
        assert_eq!(alike.texts.len(), REMEMBERED);
        drop(kept);
        assert_eq!(&*alike.text("new"), "new");
        assert_eq!(alike.texts.len(), 2);
        assert!(Arc::ptr_eq(&one, &alike.text("eu-north")));
    }
}
