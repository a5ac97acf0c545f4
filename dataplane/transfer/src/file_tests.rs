#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use super::*;
use crate::{CHUNK_BYTES, Stored};

const OWN: ProjectId = ProjectId::from_bytes([1; 16]);
const OTHER: ProjectId = ProjectId::from_bytes([2; 16]);
const MINE: Owner = Owner::Project(OWN);

fn limits(total: u64) -> Limits {
    Limits {
        blob: ByteCount::mib(4),
        project: ByteCount(total),
        reserve: ByteCount::ZERO,
        total: ByteCount(total),
    }
}

fn store(total: u64) -> (tempfile::TempDir, FileBlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBlobStore::open(dir.path(), 1, limits(total)).unwrap();
    (dir, store)
}

fn name(data: &[u8]) -> BlobRef {
    BlobRef {
        digest: Digest::of(data),
        size: ByteCount(data.len() as u64),
    }
}

async fn put(store: &FileBlobStore, claim: BlobRef, data: &[u8]) -> Result<Stored, BlobError> {
    put_as(store, MINE, claim, data).await
}

async fn put_as(
    store: &FileBlobStore,
    owner: Owner,
    claim: BlobRef,
    data: &[u8],
) -> Result<Stored, BlobError> {
    let mut upload = store.begin(owner, claim).await?;
    for chunk in data.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.finish().await
}

async fn read(store: &FileBlobStore, digest: Digest, offset: u64) -> Result<Vec<u8>, BlobError> {
    read_as(store, Reach::Project(OWN), digest, offset).await
}

async fn read_as(
    store: &FileBlobStore,
    reach: Reach,
    digest: Digest,
    offset: u64,
) -> Result<Vec<u8>, BlobError> {
    let mut download = store.get(reach, digest, offset).await?;
    let mut data = Vec::new();
    while let Some(chunk) = download.next().await? {
        assert!(chunk.len() <= CHUNK_BYTES);
        data.extend_from_slice(&chunk);
    }
    Ok(data)
}

#[tokio::test]
async fn bytes_come_back_whole_and_in_ranges_and_after_reopening() {
    let (dir, store) = store(1 << 30);
    let data: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let claim = name(&data);
    assert!(!put(&store, claim, &data).await.unwrap().already_there);
    assert!(put(&store, claim, &data).await.unwrap().already_there);
    assert_eq!(
        store.usage(),
        Usage {
            blobs: 1,
            bytes: claim.size
        }
    );

    let again = FileBlobStore::open(dir.path(), 1, limits(1 << 30)).unwrap();
    assert_eq!(
        again.usage(),
        Usage {
            blobs: 1,
            bytes: claim.size
        }
    );
    assert_eq!(read(&again, claim.digest, 0).await.unwrap(), data);
    assert_eq!(
        read(&again, claim.digest, 2_999_990).await.unwrap(),
        data[2_999_990..]
    );
    assert!(
        read(&again, claim.digest, 3_000_000)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        read(&again, claim.digest, 3_000_001).await,
        Err(BlobError::BadOffset { .. })
    ));
}

#[tokio::test]
async fn a_lie_about_hash_or_size_leaves_nothing() {
    let (dir, store) = store(1 << 30);
    let data = vec![7u8; 200_000];
    let mut claim = name(&data);
    claim.digest = Digest::of(b"other");
    assert!(matches!(
        put(&store, claim, &data).await,
        Err(BlobError::WrongDigest { .. })
    ));
    for size in [199_999, 200_001] {
        let claim = BlobRef {
            size: ByteCount(size),
            ..name(&data)
        };
        assert!(matches!(
            put(&store, claim, &data).await,
            Err(BlobError::WrongSize { .. })
        ));
    }
    assert!(matches!(
        read(&store, name(&data).digest, 0).await,
        Err(BlobError::NotFound(_))
    ));
    assert_eq!(store.usage(), Usage::default());
    assert_eq!(fs::read_dir(dir.path().join("tmp/1")).unwrap().count(), 0);
}

#[tokio::test]
async fn bounds_hold_for_one_and_for_all() {
    let (_dir, store) = store(250_000);
    let huge = BlobRef {
        digest: Digest::of(b"x"),
        size: ByteCount::mib(5),
    };
    assert!(matches!(
        store.begin(MINE, huge).await,
        Err(BlobError::TooLarge { .. })
    ));
    let (a, b) = (vec![1u8; 200_000], vec![2u8; 200_000]);
    put(&store, name(&a), &a).await.unwrap();
    assert!(matches!(
        put(&store, name(&b), &b).await,
        Err(BlobError::Full { .. })
    ));
    let gone = store.forget(MINE, name(&a).digest, Duration::ZERO);
    assert!(gone.await.unwrap());
    let gone = store.forget(MINE, name(&a).digest, Duration::ZERO);
    assert!(gone.await.unwrap());
    put(&store, name(&b), &b).await.unwrap();
    assert!(matches!(
        read(&store, name(&a).digest, 0).await,
        Err(BlobError::NotFound(_))
    ));
}

#[tokio::test]
async fn an_upload_cut_short_is_gone_after_drop_and_after_a_crash() {
    let (dir, store) = store(1 << 30);
    let data = vec![9u8; 2_000_000];
    let mut upload = store.begin(MINE, name(&data)).await.unwrap();
    upload.write(Bytes::from(data.clone())).await.unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp/1")).unwrap().count(), 1);
    drop(upload);
    assert_eq!(fs::read_dir(dir.path().join("tmp/1")).unwrap().count(), 0);

    fs::write(dir.path().join("tmp/1/99"), b"left by a crash").unwrap();
    let again = FileBlobStore::open(dir.path(), 1, limits(1 << 30)).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp/1")).unwrap().count(), 0);
    assert_eq!(again.usage(), Usage::default());
}

fn make_old(store: &FileBlobStore, owner: Owner, data: &[u8]) {
    let path = store.shared.path(owner, name(data).digest);
    let file = File::options().append(true).open(path).unwrap();
    let past = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(past).unwrap();
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_blob_is_idle_until_somebody_puts_it_again() {
    let (_dir, store) = store(1 << 30);
    let (a, b) = (vec![1u8; 1000], vec![2u8; 1000]);
    put(&store, name(&a), &a).await.unwrap();
    put(&store, name(&b), &b).await.unwrap();
    assert_eq!(store.idle(MINUTE, 10).await.unwrap(), []);
    make_old(&store, MINE, &a);
    make_old(&store, MINE, &b);
    assert_eq!(store.idle(MINUTE, 1).await.unwrap().len(), 1);
    put(&store, name(&a), &a).await.unwrap();
    assert_eq!(
        store.idle(MINUTE, 10).await.unwrap(),
        [(MINE, name(&b).digest)]
    );
}

/// A sweep has found both idle; before it deletes, one is put again and answered "already there".
#[tokio::test]
async fn what_was_put_again_since_it_was_found_idle_is_not_forgotten() {
    let (_dir, store) = store(1 << 30);
    let (a, b) = (vec![1u8; 1000], vec![2u8; 1000]);
    for data in [&a, &b] {
        put(&store, name(data), data).await.unwrap();
        make_old(&store, MINE, data);
    }
    let found = store.idle(MINUTE, 10).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(put(&store, name(&a), &a).await.unwrap().already_there);
    for (owner, digest) in found {
        let gone = store.forget(owner, digest, MINUTE).await.unwrap();
        assert_eq!(gone, digest == name(&b).digest);
    }
    assert_eq!(read(&store, name(&a).digest, 0).await.unwrap(), a);
    assert_eq!(store.usage().blobs, 1);
}

#[tokio::test]
async fn a_name_opens_only_ones_own() {
    let (_dir, store) = store(1 << 30);
    let data = vec![3u8; 1000];
    let claim = name(&data);
    put(&store, claim, &data).await.unwrap();
    let others = read_as(&store, Reach::Project(OTHER), claim.digest, 0).await;
    assert!(matches!(others, Err(BlobError::NotFound(_))));
    let nodes = read_as(&store, Reach::Everybody, claim.digest, 0).await;
    assert_eq!(nodes.unwrap(), data);
    // Nor does a put tell whether another has it: the bytes are taken and checked.
    let theirs = Owner::Project(OTHER);
    let lie = put_as(&store, theirs, claim, &[4u8; 1000]).await;
    assert!(matches!(lie, Err(BlobError::WrongDigest { .. })));
    let stored = put_as(&store, theirs, claim, &data).await.unwrap();
    assert!(!stored.already_there);
    assert_eq!(store.usage().blobs, 2);
}

#[tokio::test]
async fn a_nodes_blob_is_read_once_a_project_has_adopted_it() {
    let (dir, store) = store(1 << 30);
    let (node, data) = (NodeId([7; 32]), vec![5u8; 1000]);
    let digest = name(&data).digest;
    put_as(&store, Owner::Node(node), name(&data), &data)
        .await
        .unwrap();
    for reach in [Reach::Project(OWN), Reach::Everybody] {
        let early = read_as(&store, reach, digest, 0).await;
        assert!(matches!(early, Err(BlobError::NotFound(_))));
    }
    let stranger = store.adopt(NodeId([8; 32]), OWN, digest).await;
    assert!(matches!(stranger, Err(BlobError::NotFound(_))));
    store.adopt(node, OWN, digest).await.unwrap();
    // A batch that is sent again.
    store.adopt(node, OWN, digest).await.unwrap();
    assert_eq!(read(&store, digest, 0).await.unwrap(), data);
    let counted = store.usage();
    assert_eq!((counted.blobs, counted.bytes), (1, name(&data).size));
    let again = FileBlobStore::open(dir.path(), 1, limits(1 << 30)).unwrap();
    assert_eq!(again.usage(), counted);
}

#[tokio::test]
async fn a_projects_bound_is_its_own_and_uploads_under_way_count() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Limits {
        project: ByteCount(250_000),
        ..limits(1 << 30)
    };
    let store = FileBlobStore::open(dir.path(), 1, bounds).unwrap();
    let (a, b) = (vec![1u8; 200_000], vec![2u8; 200_000]);
    let under_way = store.begin(MINE, name(&a)).await.unwrap();
    let refused = put(&store, name(&b), &b).await.unwrap_err();
    assert!(matches!(refused, BlobError::Quota { .. }));
    let text = refused.to_string();
    assert!(text.contains("blob_project"), "{text}");
    let theirs = Owner::Project(OTHER);
    put_as(&store, theirs, name(&b), &b).await.unwrap();
    drop(under_way);
    put(&store, name(&b), &b).await.unwrap();
    // Results count, and are not refused.
    let node = NodeId([7; 32]);
    put_as(&store, Owner::Node(node), name(&a), &a)
        .await
        .unwrap();
    store.adopt(node, OWN, name(&a).digest).await.unwrap();
    let c = vec![3u8; 1];
    assert!(matches!(
        put(&store, name(&c), &c).await,
        Err(BlobError::Quota { .. })
    ));
}

#[tokio::test]
async fn small_uploads_go_on_where_results_fill_a_projects_bound() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Limits {
        project: ByteCount::mib(1),
        reserve: ByteCount(300_000),
        ..limits(1 << 30)
    };
    let store = FileBlobStore::open(dir.path(), 1, bounds).unwrap();
    let node = NodeId([7; 32]);
    for fill in 0..2 {
        let result = vec![fill; 1 << 20];
        let claim = name(&result);
        put_as(&store, Owner::Node(node), claim, &result)
            .await
            .unwrap();
        store.adopt(node, OWN, claim.digest).await.unwrap();
    }
    let large = vec![7u8; CHUNK_BYTES + 1];
    let refused = put(&store, name(&large), &large).await.unwrap_err();
    assert!(matches!(refused, BlobError::Quota { .. }), "{refused}");
    assert!(refused.to_string().contains("3 days"), "{refused}");
    let small: Vec<_> = (0..4u8).map(|fill| vec![fill; 100_000]).collect();
    for data in &small[..3] {
        put(&store, name(data), data).await.unwrap();
    }
    // Also by a count of what lies there: a server that starts anew.
    let again = FileBlobStore::open(dir.path(), 2, bounds).unwrap();
    for store in [&store, &again] {
        let refused = put(store, name(&small[3]), &small[3]).await.unwrap_err();
        assert!(matches!(refused, BlobError::Quota { .. }), "{refused}");
    }
    // The reserve is each project's own.
    let theirs = Owner::Project(OTHER);
    put_as(&store, theirs, name(&small[3]), &small[3])
        .await
        .unwrap();
}

#[tokio::test]
async fn servers_that_share_a_folder_leave_each_others_uploads() {
    let (dir, first) = store(1 << 30);
    let data = vec![9u8; 2_000_000];
    let mut upload = first.begin(MINE, name(&data)).await.unwrap();
    upload.write(Bytes::from(data.clone())).await.unwrap();
    let second = FileBlobStore::open(dir.path(), 2, limits(1 << 30)).unwrap();
    upload.finish().await.unwrap();
    assert_eq!(read(&second, name(&data).digest, 0).await.unwrap(), data);
}

#[test]
fn a_disk_without_room_is_no_disk_that_failed() {
    let full = std::io::Error::from_raw_os_error(28);
    let used = Usage {
        blobs: 1,
        bytes: ByteCount::mib(3),
    };
    let error = told_apart(full, used);
    assert!(matches!(error, BlobError::NoRoom { .. }));
    assert!(error.to_string().contains("3 MiB"), "{error}");
    let failed = std::io::Error::from_raw_os_error(5);
    assert!(matches!(told_apart(failed, used), BlobError::Disk(_)));
}

/// The sweep runs where the leader is; this server hears nothing of it.
#[tokio::test]
async fn what_another_server_has_deleted_is_room_again() {
    let (dir, first) = store(250_000);
    let (a, b) = (vec![1u8; 200_000], vec![2u8; 200_000]);
    put(&first, name(&a), &a).await.unwrap();
    let second = FileBlobStore::open(dir.path(), 2, limits(250_000)).unwrap();
    let gone = second.forget(MINE, name(&a).digest, Duration::ZERO).await;
    assert!(gone.unwrap());
    let full = put(&first, name(&b), &b).await.unwrap_err();
    assert!(matches!(full, BlobError::Full { .. }), "counted just now");
    first.shared.counts.make_old();
    put(&first, name(&b), &b).await.unwrap();
    assert_eq!(first.usage().bytes, name(&b).size);
}
