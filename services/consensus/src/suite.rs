//! openraft's own suite, run on the stores.
#![allow(clippy::unwrap_used)]

use farlane_units::ByteCount;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::log::{Followers, LogStore};
use crate::machine::{Machine, Replica};
use crate::raft::{StorageError, TypeConfig};

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ByteCount::mib(4)).unwrap();
        let log = LogStore::open(&dir.path().join("log"), 1, Followers::None).unwrap();
        Ok((dir, log, Machine(replica)))
    }
}

#[test]
fn the_stores_pass_openrafts_suite() {
    Suite::test_all(Stores).unwrap();
}
