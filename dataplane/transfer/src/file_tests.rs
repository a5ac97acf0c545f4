#![allow(clippy::unwrap_used)]

use super::*;

fn store(total: u64) -> (tempfile::TempDir, FileBlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBlobStore::open(dir.path(), ByteCount::mib(4), ByteCount(total)).unwrap();
    (dir, store)
}

fn name(data: &[u8]) -> BlobRef {
    BlobRef {
        digest: Digest::of(data),
        size: ByteCount(data.len() as u64),
    }
}

async fn put(store: &FileBlobStore, claim: BlobRef, data: &[u8]) -> Result<Stored, BlobError> {
    let mut upload = store.begin(claim).await?;
    for chunk in data.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.finish().await
}

async fn read(store: &FileBlobStore, digest: Digest, offset: u64) -> Result<Vec<u8>, BlobError> {
    let mut download = store.get(digest, offset).await?;
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

    let again = FileBlobStore::open(dir.path(), ByteCount::mib(4), ByteCount::gib(1)).unwrap();
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
    assert_eq!(store.has(name(&data).digest).await.unwrap(), None);
    assert_eq!(store.usage(), Usage::default());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn bounds_hold_for_one_and_for_all() {
    let (_dir, store) = store(250_000);
    let huge = BlobRef {
        digest: Digest::of(b"x"),
        size: ByteCount::mib(5),
    };
    assert!(matches!(
        store.begin(huge).await,
        Err(BlobError::TooLarge { .. })
    ));
    let (a, b) = (vec![1u8; 200_000], vec![2u8; 200_000]);
    put(&store, name(&a), &a).await.unwrap();
    assert!(matches!(
        put(&store, name(&b), &b).await,
        Err(BlobError::Full { .. })
    ));
    store.delete(name(&a).digest).await.unwrap();
    store.delete(name(&a).digest).await.unwrap();
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
    let mut upload = store.begin(name(&data)).await.unwrap();
    upload.write(Bytes::from(data.clone())).await.unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1);
    drop(upload);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);

    fs::write(dir.path().join("tmp/99"), b"left by a crash").unwrap();
    let again = FileBlobStore::open(dir.path(), ByteCount::mib(4), ByteCount::gib(1)).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(again.usage(), Usage::default());
}

#[tokio::test]
async fn a_blob_is_idle_until_somebody_puts_it_again() {
    let (_dir, store) = store(1 << 30);
    let (a, b) = (vec![1u8; 1000], vec![2u8; 1000]);
    put(&store, name(&a), &a).await.unwrap();
    put(&store, name(&b), &b).await.unwrap();
    assert_eq!(store.idle(Duration::from_secs(60), 10).await.unwrap(), []);
    let past = SystemTime::now() - Duration::from_secs(3600);
    for data in [&a, &b] {
        let path = store.shared.path(name(data).digest);
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(past)
            .unwrap();
    }
    assert_eq!(
        store.idle(Duration::from_secs(60), 1).await.unwrap().len(),
        1
    );
    put(&store, name(&a), &a).await.unwrap();
    assert_eq!(
        store.idle(Duration::from_secs(60), 10).await.unwrap(),
        [name(&b).digest]
    );
}
