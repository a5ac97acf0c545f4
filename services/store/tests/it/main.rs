//! The ledger against both of its databases: every story is told once on SQLite and once on a
//! PostgreSQL that the test starts itself.

#![allow(clippy::unwrap_used)]

mod database;
mod prices;
mod stories;
mod usage;

use database::{Postgres, sqlite};

/// One test on each database for each story.
macro_rules! on_both {
    ($($story:ident::$name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                let (store, dir) = super::sqlite().await;
                super::$story::$name(store).await;
                drop(dir);
            })*
        }
        /// One server for all of them, each in a database of its own.
        #[tokio::test]
        async fn on_postgres() {
            let server = Postgres::start();
            $(
                println!("{}", stringify!($name));
                $story::$name(server.store(stringify!($name)).await).await;
            )*
        }
    };
}

on_both!(
    stories::keys_open_only_what_they_should,
    stories::a_key_is_checked_to_the_last_bit,
    stories::projects_are_made_once_and_bound_once,
    stories::a_join_token_works_once,
    stories::of_many_takers_one_gets_the_token,
    stories::nodes_are_noted_and_removed,
    stories::the_outbox_counts_every_row_once,
    stories::a_failed_delivery_leaves_nothing,
    stories::history_reads_page_by_page,
    stories::the_audit_grows,
    usage::tasks_are_read_by_submission_whatever_order_they_ended_in,
    usage::charges_beyond_all_bounds_are_held_there_and_stop_nobody,
    prices::a_book_is_replaced_whole_and_never_behind_anybodys_back,
    prices::carbon_is_kept_as_it_was_said,
);
#[tokio::test]
async fn the_sqlite_file_is_closed_to_others_and_survives() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let url = format!("sqlite://{}", path.display());
    let pepper = farlane_store::Pepper::new([7; 32]);
    let now = farlane_units::Millis(1_700_000_000_000);
    let store = farlane_store::Store::open(&url, pepper.clone())
        .await
        .unwrap();
    let project = store.projects().ensure("default", now).await.unwrap();
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let mode = std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    let again = farlane_store::Store::open(&url, pepper).await.unwrap();
    assert_eq!(
        again.projects().get(project.id).await.unwrap(),
        Some(project)
    );
}

#[tokio::test]
async fn a_damaged_file_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts.db");
    std::fs::write(&path, [b'x'; 8192]).unwrap();
    let url = format!("sqlite://{}", path.display());
    let pepper = farlane_store::Pepper::new([7; 32]);
    let error = farlane_store::Store::open(&url, pepper).await.unwrap_err();
    assert_eq!(error.class(), farlane_store::Class::Caller);
    let text = error.to_string();
    for part in [path.to_str().unwrap(), "damaged", "backup"] {
        assert!(text.contains(part), "{text}");
    }
    // Nothing was written over what may be mended.
    assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 8192]);
}

#[tokio::test]
async fn other_addresses_are_refused_without_their_password() {
    let error = farlane_store::Store::open(
        "mysql://me:hunter2@host/x",
        farlane_store::Pepper::new([0; 32]),
    )
    .await
    .unwrap_err();
    assert_eq!(error.class(), farlane_store::Class::Caller);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
