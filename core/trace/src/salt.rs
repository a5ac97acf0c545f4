//! Names that nobody can guess back.

use farlane_model::{Digest, NodeId, ProjectId};

/// Letters of a hashed name: 64 bits, so that among 100,000 names two are alike once in four billion traces.
const LETTERS: usize = 16;

/// What names of one trace are hashed with. Made anew for each and written nowhere, so that nobody, not even who knows
/// a name, can look for it in the file, or tell that two files speak of the same.
pub struct Salt([u8; 32]);

impl Salt {
    /// Of 32 random bytes.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// A name of this sort. *Source*: BLAKE3 of the salt, the sort and the name; a prefix of 256 secret bits is a key.
    pub fn name(&self, sort: &str, name: &[u8]) -> String {
        let bytes = [&self.0, sort.as_bytes(), b"\0", name].concat();
        let hex = Digest::of(&bytes).to_string();
        format!("{sort}-{}", &hex[..LETTERS])
    }

    /// A project.
    pub fn project(&self, id: &ProjectId) -> String {
        self.name("p", &id.to_bytes())
    }
    /// A node.
    pub fn node(&self, id: &NodeId) -> String {
        self.name("n", &id.0)
    }
    /// A provider.
    pub fn provider(&self, root: &Digest) -> String {
        self.name("o", &root.0)
    }
    /// A label's key.
    pub fn key(&self, key: &str) -> String {
        self.name("l", key.as_bytes())
    }
    /// A label's value.
    pub fn value(&self, value: &str) -> String {
        self.name("v", value.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_within_a_trace_and_another_in_the_next() {
        let (one, other) = (Salt::new([1; 32]), Salt::new([2; 32]));
        assert_eq!(one.key("disk"), one.key("disk"));
        assert_ne!(one.key("disk"), other.key("disk"));
        assert_ne!(one.key("disk")[2..], one.value("disk")[2..]);
        assert_eq!(one.key("disk").len(), 2 + LETTERS);
    }
}
