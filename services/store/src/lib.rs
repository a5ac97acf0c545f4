//! The ledger's rows: projects, API keys, join tokens, nodes, prices, specs, usage, charges,
//! audit.
//!
//! Owns every SQL statement of Farlane and the schema (`migrations/sql`), which runs unchanged on
//! SQLite and PostgreSQL. Leaves to others who may ask (farlane-api), what a charge is
//! (farlane-ledger) and when (every call that needs the time takes it).
//!
//! A store is cheap to clone; its repositories borrow it:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use farlane_store::{NewKey, Pepper, Scopes, Store};
//! use farlane_units::Millis;
//! let store = Store::open("sqlite:///tmp/ledger.sqlite", Pepper::new([7; 32])).await?;
//! let now = Millis(1_700_000_000_000);
//! let project = store.projects().ensure("default", now).await?;
//! let new = NewKey { project: project.id, name: "laptop".into(), scopes: Scopes::all(), expires: Millis(now.0 + 1) };
//! let (key, secret) = store.keys().create(new, now).await?;
//! assert_eq!(store.keys().authenticate(secret.reveal(), now).await?.key, key.id);
//! # Ok(()) }
//! ```

mod audit;
mod carbon;
mod charge;
mod error;
mod join;
mod key;
mod mark;
mod node;
mod open;
mod outbox;
mod pepper;
mod price;
mod project;
mod row;
mod spec;
mod usage;

pub use audit::{Audit, AuditEntry};
pub use carbon::{Carbon, KeptCarbon};
pub use charge::Charges;
pub use error::{Class, StoreError};
pub use join::{JoinError, JoinToken, JoinTokens, NewJoinToken, Taker};
pub use key::{AuthError, Key, KeyIdentity, Keys, NewKey, Scope, Scopes, Secret};
pub use node::{NewNode, NodeRow, Nodes};
pub use open::Store;
pub use outbox::{Ingested, Outbox};
pub use pepper::Pepper;
pub use price::{BookRow, MAX_BOOKS, NewBook, PriceBooks};
pub use project::{Project, Projects};
pub use spec::Specs;
pub use usage::{HistoryEntry, Span, UsageRows};

/// Most rows that one call of a list returns. A page holds fewer only when it is the last.
pub const MAX_PAGE: u32 = 1000;
