#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use farlane_runtime::{Entropy, SimulatedEntropy};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};

use super::segment::{SEGMENT_BYTES, SEGMENT_HEAD};
use super::{Followers, LogStore};
use crate::error::StartError;
use crate::raft::{Batch, Entry, LogId, Vote};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64, size: usize) -> Entry {
    let body = Bytes::from(vec![(index % 251) as u8; size]);
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(Batch {
            body,
            ..Batch::default()
        }),
    }
}

fn body(entry: &Entry) -> &[u8] {
    match &entry.payload {
        EntryPayload::Normal(batch) => &batch.body,
        _ => &[],
    }
}

async fn all(log: &mut LogStore) -> Vec<(LogId, Vec<u8>)> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries
        .iter()
        .map(|entry| (entry.log_id, body(entry).to_vec()))
        .collect()
}

fn model(entries: &[Entry]) -> Vec<(LogId, Vec<u8>)> {
    entries
        .iter()
        .map(|entry| (entry.log_id, body(entry).to_vec()))
        .collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    files.sort();
    files
}

async fn reopen(log: LogStore, dir: &Path) -> LogStore {
    log.close().await;
    drop(log);
    LogStore::open(dir, 1, Followers::None).unwrap()
}

/// Appends, truncations, purges and reopenings at random, held against a plain list.
#[tokio::test]
async fn any_history_reads_back_as_it_was() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let random = SimulatedEntropy::new(seed);
        // Written by who appends, and by the thread.
        let followers = [Followers::None, Followers::Some][seed as usize % 2];
        let mut log = LogStore::open(dir.path(), 1, followers).unwrap();
        let (mut entries, mut purged, mut term) = (Vec::<Entry>::new(), None::<LogId>, 1);
        for step in 0..60 {
            let next = entries
                .last()
                .map(|e| e.log_id.index + 1)
                .or(purged.map(|id| id.index + 1))
                .unwrap_or(0);
            match random.below(10) {
                0..5 => {
                    let sizes = (0..1 + random.below(5)).map(|_| match random.below(8) {
                        0 => 900_000,
                        _ => random.below(2_000) as usize,
                    });
                    let fresh: Vec<_> = sizes
                        .enumerate()
                        .map(|(n, size)| entry(term, next + n as u64, size))
                        .collect();
                    log.blocking_append(fresh.clone()).await.unwrap();
                    entries.extend(fresh);
                }
                5 | 6 if !entries.is_empty() => {
                    let keep = random.below(entries.len() as u64) as usize;
                    log.truncate(entries[keep].log_id).await.unwrap();
                    entries.truncate(keep);
                    term += 1;
                }
                7 if !entries.is_empty() => {
                    let upto = entries[random.below(entries.len() as u64) as usize].log_id;
                    log.purge(upto).await.unwrap();
                    purged = Some(upto);
                    entries.retain(|entry| entry.log_id.index > upto.index);
                }
                8 if step % 20 == 8 => {
                    // As after a snapshot that lies beyond the log.
                    let upto = id(term, next + 100);
                    log.purge(upto).await.unwrap();
                    purged = Some(upto);
                    entries.clear();
                }
                _ => log = reopen(log, dir.path()).await,
            }
            assert_eq!(
                all(&mut log).await,
                model(&entries),
                "seed {seed} step {step}"
            );
            let state = log.get_log_state().await.unwrap();
            assert_eq!(state.last_purged_log_id, purged, "seed {seed} step {step}");
            assert_eq!(
                state.last_log_id,
                entries.last().map(|e| e.log_id).or(purged),
                "seed {seed} step {step}"
            );
        }
        log.close().await;
    }
}

#[tokio::test]
async fn a_vote_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(dir.path(), 1, Followers::None).unwrap();
    log.save_vote(&Vote::new_committed(9, 1)).await.unwrap();
    let mut log = reopen(log, dir.path()).await;
    assert_eq!(
        log.read_vote().await.unwrap(),
        Some(Vote::new_committed(9, 1))
    );
}

/// Three frames of one entry each; gives where each ends.
async fn three_frames(dir: &Path) -> Vec<u64> {
    let mut log = LogStore::open(dir, 1, Followers::None).unwrap();
    let mut ends = vec![SEGMENT_HEAD];
    for index in 0..3 {
        let one = entry(1, index, 300);
        ends.push(ends[index as usize] + (super::frame::HEAD + super::frame::size(&one)) as u64);
        log.blocking_append([one]).await.unwrap();
    }
    log.close().await;
    ends
}

#[tokio::test]
async fn a_torn_last_frame_is_no_frame_and_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_frames(dir.path()).await;
    let path = segments(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for byte in ends[2]..ends[3] {
        let mut torn = whole.clone();
        torn[byte as usize] ^= 0x40;
        fs::write(&path, &torn).unwrap();
        let mut log = LogStore::open(dir.path(), 1, Followers::None).unwrap();
        assert_eq!(all(&mut log).await.len(), 2, "byte {byte}");
        log.blocking_append([entry(2, 2, 50)]).await.unwrap();
        let mut log = reopen(log, dir.path()).await;
        assert_eq!(
            log.get_log_state().await.unwrap().last_log_id,
            Some(id(2, 2)),
            "byte {byte}"
        );
        log.close().await;
    }
    // A file that ends early is the same.
    for length in [ends[3] - 1, ends[2] + 5, ends[2]] {
        fs::write(&path, &whole[..length as usize]).unwrap();
        let mut log = LogStore::open(dir.path(), 1, Followers::None).unwrap();
        assert_eq!(all(&mut log).await.len(), 2, "length {length}");
        log.close().await;
    }
}

#[tokio::test]
async fn damage_before_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_frames(dir.path()).await;
    let path = segments(dir.path()).remove(0);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let at = ends[1] + super::frame::HEAD as u64 + 30;
    file.write_all_at(&[0xff], at).unwrap();
    let Err(error) = LogStore::open(dir.path(), 1, Followers::None) else {
        panic!("it opened")
    };
    assert!(matches!(error, StartError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn segments_are_unlinked_behind_the_purge_and_a_missing_one_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(dir.path(), 1, Followers::None).unwrap();
    let each = 1_000_000;
    let count = 4 * SEGMENT_BYTES / each;
    for index in 0..count {
        log.blocking_append([entry(1, index, each as usize)])
            .await
            .unwrap();
    }
    assert_eq!(segments(dir.path()).len(), 5);
    let upto = log.purgeable(2).unwrap();
    assert!(upto > count / 3 && upto < count, "{upto} of {count}");
    log.purge(id(1, upto)).await.unwrap();
    assert_eq!(segments(dir.path()).len(), 2);
    let mut log = reopen(log, dir.path()).await;
    assert_eq!(all(&mut log).await.len() as u64, count - upto - 1);
    log.close().await;
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    let Err(error) = LogStore::open(dir.path(), 1, Followers::None) else {
        panic!("it opened")
    };
    assert!(matches!(error, StartError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn reading_for_a_follower_is_bounded_and_gives_at_least_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(dir.path(), 1, Followers::None).unwrap();
    log.blocking_append((0..8).map(|index| entry(1, index, 900_000)))
        .await
        .unwrap();
    assert_eq!(log.limited_get_log_entries(0, 8).await.unwrap().len(), 2);
    assert_eq!(log.limited_get_log_entries(7, 8).await.unwrap().len(), 1);
    let mut log = reopen(log, dir.path()).await;
    assert_eq!(log.limited_get_log_entries(3, 8).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(dir.path(), 1, Followers::None).unwrap();
    log.blocking_append([entry(1, 0, 10)]).await.unwrap();
    assert!(log.blocking_append([entry(1, 2, 10)]).await.is_err());
}
