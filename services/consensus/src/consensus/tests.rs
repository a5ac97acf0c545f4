//! A leader that is deposed with proposals on their way.
#![allow(clippy::unwrap_used)]

use farlane_model::Digest;
use farlane_runtime::SystemClock;
use farlane_state::{Genesis, Order};
use openraft::storage::{RaftStateMachine, Snapshot};

use super::*;
use crate::network::PlainConnector;
use crate::raft::{LogId, Membership, TypeConfig, Vote};

fn genesis() -> Command {
    Order::Genesis(Genesis {
        network: Digest::of(b"test"),
        epoch: 1,
        cluster_version: 1,
    })
    .encode()
}

/// A leader of one whose quorum has just come to need a server that does not answer.
async fn stranded(dir: &std::path::Path) -> Consensus {
    let own = Member {
        id: 1,
        url: "http://127.0.0.1:1".to_owned(),
    };
    let config = Config {
        id: 1,
        dir: dir.to_owned(),
        members: vec![own],
        bootstrap: true,
        cache: ByteCount::mib(4),
        connector: Arc::new(PlainConnector),
    };
    let consensus = Consensus::start(config, Arc::new(SystemClock))
        .await
        .unwrap();
    consensus.propose(vec![genesis()]).await.unwrap();
    let raft = &consensus.inner.raft;
    let nobody = BasicNode {
        addr: "http://127.0.0.1:2".to_owned(),
    };
    raft.add_learner(2, nobody, false).await.unwrap();
    let voter = ChangeMembers::AddVoterIds([2].into());
    let asked = raft.clone();
    tokio::spawn(async move { asked.change_membership(voter, false).await });
    let mut metrics = raft.metrics();
    let joint = |now: &openraft::RaftMetrics<u64, BasicNode>| {
        now.membership_config.membership().get_joint_config().len() == 2
    };
    metrics.wait_for(joint).await.unwrap();
    consensus
}

/// This server's own rows as a snapshot of another leader's, of a term and an index to come.
async fn from_another(consensus: &Consensus, term: u64, index: u64) -> Snapshot<TypeConfig> {
    let mut machine = Machine(consensus.inner.replica.clone());
    let mut snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
    let at = LogId::new(openraft::CommittedLeaderId::new(term, 2), index);
    snapshot.meta.last_log_id = Some(at);
    // Both are voters there, so that this server cannot come to lead alone.
    let nodes = BTreeMap::from([(1, BasicNode::default()), (2, BasicNode::default())]);
    let both = openraft::Membership::new(vec![[1, 2].into()], nodes);
    snapshot.meta.last_membership = Membership::new(Some(at), both);
    snapshot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_over_what_was_proposed_ends_the_wait_and_frees_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = stranded(dir.path()).await;
    // More than may be in flight, so that some wait for a place.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let consensus = consensus.clone();
            tokio::spawn(async move { consensus.propose(vec![genesis()]).await })
        })
        .collect();
    let raft = consensus.inner.raft.clone();
    let applied = consensus.applied_index();
    let logged = |now: &openraft::RaftMetrics<u64, BasicNode>| {
        now.last_log_index.is_some_and(|last| last >= applied + 3)
    };
    raft.metrics().wait_for(logged).await.unwrap();
    assert!(waiting.iter().all(|one| !one.is_finished()), "no quorum");

    let (term, index) = (9, applied + 100);
    let snapshot = from_another(&consensus, term, index).await;
    let vote = Vote::new_committed(term, 2);
    raft.install_full_snapshot(vote, snapshot).await.unwrap();
    let mut unknown = 0;
    for one in waiting {
        match within(one).await.unwrap() {
            Err(ProposeError::Unknown) => unknown += 1,
            Err(ProposeError::NotLeader { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(unknown > 0, "what was in the log may be in the snapshot");
    assert_eq!(consensus.applied_index(), index);
    for _ in 0..8 {
        let refused = within(consensus.propose(vec![genesis()])).await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { .. })),
            "{refused:?}"
        );
    }
}

/// Fails rather than hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(20), future).await;
    waited.expect("an answer")
}
