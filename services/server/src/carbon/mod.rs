//! The carbon feed: a file, or what an address answers, read whole and bounded.
//!
//! Owns the way to the bytes. Leaves what they say to [`parse`], and when to read them to farlane-controller.

mod http;
mod parse;

use std::path::PathBuf;
use std::time::Duration;

use farlane_controller::{CarbonFeed, FeedError};
use farlane_ledger::CarbonTable;
use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt;

/// Largest feed. Source: 65,536 readings of 100 B, and as much again.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How long a feed may take in all. Chosen: it is read once an hour.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a feed is.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    Url(http::Address),
}

/// A feed by its place.
#[derive(Debug)]
pub(crate) struct Feed {
    source: String,
    place: Place,
}

/// Whether a setting names a file, or an address that can be asked.
///
/// *Errors*: what it must be, in words.
pub(crate) fn checked(source: &str) -> Result<(), &'static str> {
    Feed::new(source).map(drop)
}

impl Feed {
    /// By a path, or an `http://` or `https://` address.
    ///
    /// *Errors*: an address that is none, in words.
    pub(crate) fn new(source: &str) -> Result<Self, &'static str> {
        let place = match source.contains("://") {
            true => Place::Url(http::Address::new(source)?),
            false => Place::File(PathBuf::from(source)),
        };
        // What follows may be a key, and people, logs and accounts are told of the source.
        let shown = match &place {
            Place::Url(_) => source.split('?').next().unwrap_or_default(),
            Place::File(_) => source,
        };
        Ok(Self {
            source: shown.to_owned(),
            place,
        })
    }

    async fn text(&self) -> Result<String, FeedError> {
        let bytes = match &self.place {
            Place::Url(address) => http::get(address, MAX_BYTES).await?,
            Place::File(path) => {
                let mut bytes = Vec::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await?;
                bytes
            }
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(FeedError::TooLarge { most: MAX_BYTES });
        }
        String::from_utf8(bytes).map_err(|_| FeedError::Malformed {
            what: "it is no UTF-8 text".into(),
        })
    }
}

impl CarbonFeed for Feed {
    fn source(&self) -> &str {
        &self.source
    }

    fn read(&self) -> BoxFuture<'_, Result<CarbonTable, FeedError>> {
        Box::pin(async {
            let seconds = PATIENCE.as_secs();
            let text = tokio::time::timeout(PATIENCE, self.text()).await;
            let text = text.map_err(|_| FeedError::TooSlow { seconds })??;
            parse::table(&text)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// A server that answers one request with `head`, then with `body` so many times.
    async fn answers(head: &'static str, body: &'static str, times: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hours?zone=eu", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).await.unwrap();
            assert!(asked[..n].starts_with(b"GET /hours?zone=eu HTTP/1.1\r\n"));
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..times {
                if stream.write_all(body.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        url
    }
    async fn read(source: &str) -> Result<CarbonTable, FeedError> {
        Feed::new(source).unwrap().read().await
    }

    const FINE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_feed_is_read_from_an_address_and_from_a_file() {
        let csv = "region,hour,g_per_kwh\neu-central,2026-12-01T13:00Z,312.5\n";
        let table = read(&answers(FINE, csv, 1).await).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("carbon.csv");
        std::fs::write(&path, csv).unwrap();
        assert_eq!(read(path.to_str().unwrap()).await.unwrap(), table);
        assert_eq!(table.len(), 1);
    }

    #[tokio::test]
    async fn a_gibibyte_is_not_read_to_its_end() {
        const LINE: &str = "eu-central,2026-12-01T13:00Z,312.5,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n";
        let url = answers(FINE, LINE, (1 << 30) / LINE.len()).await;
        assert!(matches!(read(&url).await, Err(FeedError::TooLarge { .. })));
        let said = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
        let url = answers(said, LINE, 1).await;
        assert!(matches!(read(&url).await, Err(FeedError::TooLarge { .. })));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.csv");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        let large = read(path.to_str().unwrap()).await;
        assert!(matches!(large, Err(FeedError::TooLarge { .. })));
    }

    #[test]
    fn a_key_in_an_address_is_shown_to_nobody() {
        let feed = Feed::new("https://grid.example/hours?key=hunter2").unwrap();
        assert_eq!(feed.source(), "https://grid.example/hours");
    }

    #[tokio::test]
    async fn what_is_not_there_says_so() {
        let url = answers("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n", "", 0).await;
        assert!(matches!(
            read(&url).await,
            Err(FeedError::Status { status: 404 })
        ));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", free.local_addr().unwrap());
        drop(free);
        assert!(matches!(read(&url).await, Err(FeedError::Reach { .. })));
        assert!(matches!(
            read("/no/such/file").await,
            Err(FeedError::Read(_))
        ));
        for bad in ["ftp://a/b", "https://", "http:///x", "https://a b/"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
