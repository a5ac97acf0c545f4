//! Stories of price books and of the carbon table.

use farlane_ledger::{CarbonTable, Entry, PriceBook, Rate, Scope};
use farlane_model::{Digest, Glob};
use farlane_store::{KeptCarbon, NewBook, Store};
use farlane_units::{MilliGramsKwh, Millis, UsdMicros};

const NOW: Millis = Millis(1_700_000_000_000);

fn entry(rate: Rate, region: &str, price: i64, until: Option<Millis>) -> Entry {
    let glob = |text: &str| Glob::new(text).unwrap();
    Entry {
        scope: Scope {
            rate,
            region: glob(region),
            target: glob("*"),
        },
        price: UsdMicros(price),
        since: NOW,
        until,
    }
}

pub async fn a_book_is_replaced_whole_and_never_behind_anybodys_back(store: Store) {
    let (prices, provider, other) = (store.prices(), Digest([7; 32]), Digest([9; 32]));
    assert_eq!(prices.get(provider).await.unwrap(), None);
    let later = Millis(NOW.0 + 1000);
    let first = PriceBook::new(vec![
        entry(Rate::CoreHour, "eu-*", 40_000, Some(later)),
        entry(Rate::EgressGb, "*", 50_000, None),
        entry(Rate::UcuHour, "*", 1, None),
    ]);
    let second = PriceBook::new(vec![entry(Rate::CoreHour, "*", 0, None)]);
    let change = |provider, after, book| NewBook {
        provider,
        after,
        book,
        by: "key-1",
        detail: "3 prices",
    };
    assert_eq!(
        prices
            .replace(change(provider, 0, &first), NOW)
            .await
            .unwrap(),
        Some(1)
    );
    let kept = prices.get(provider).await.unwrap().unwrap();
    assert_eq!((&kept.book, kept.revision, kept.changed), (&first, 1, NOW));
    assert_eq!(kept.changed_by, "key-1");
    // Who has not seen the last change changes nothing, and leaves no line in the audit.
    for after in [0, 2] {
        let stale = prices
            .replace(change(provider, after, &second), later)
            .await;
        assert_eq!(stale.unwrap(), None);
    }
    assert_eq!(prices.get(provider).await.unwrap(), Some(kept));
    assert_eq!(
        prices
            .replace(change(provider, 1, &second), later)
            .await
            .unwrap(),
        Some(2)
    );
    assert_eq!(prices.get(provider).await.unwrap().unwrap().book, second);
    prices
        .replace(change(other, 0, &first), later)
        .await
        .unwrap();
    assert_eq!(
        prices.revisions().await.unwrap(),
        [(provider, 2), (other, 1)]
    );
    let all = prices.list(None).await.unwrap();
    assert_eq!(
        all.iter().map(|row| row.provider).collect::<Vec<_>>(),
        [provider, other]
    );
    assert_eq!(prices.list(Some(provider)).await.unwrap().len(), 1);
    let lines = store.audit().list(Millis(u64::MAX), 10).await.unwrap();
    let lines: Vec<_> = lines.iter().filter(|l| l.action == "prices.set").collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines
            .iter()
            .all(|l| l.actor == "key-1" && l.detail == "3 prices")
    );
}

pub async fn carbon_is_kept_as_it_was_said(store: Store) {
    let carbon = store.carbon();
    assert_eq!(
        (
            carbon.kept().await.unwrap(),
            carbon.fetched().await.unwrap()
        ),
        (None, None)
    );
    let mut table = CarbonTable::default();
    for n in 0..600 {
        let hour = Millis(NOW.0 + n * 3_600_000);
        table
            .note("eu-central", Some(hour), MilliGramsKwh(n as u32))
            .unwrap();
    }
    table.note("moon", None, MilliGramsKwh(5)).unwrap();
    let mut kept = KeptCarbon {
        source: "https://grid.example/hours.csv".into(),
        fetched: NOW,
        table,
    };
    carbon.keep(&kept).await.unwrap();
    assert_eq!(carbon.kept().await.unwrap(), Some(kept.clone()));
    kept.table = CarbonTable::default();
    kept.fetched = Millis(NOW.0 + 1);
    carbon.keep(&kept).await.unwrap();
    assert_eq!(carbon.fetched().await.unwrap(), Some(kept.fetched));
    assert_eq!(carbon.kept().await.unwrap(), Some(kept));
}
