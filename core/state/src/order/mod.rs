//! The orders, one a file: what it asks, what it does, its tests.

mod ack_outbox;
mod ack_results;
mod attach_granter;
mod cancel;
mod complete_batch;
mod detach_granter;
mod expire;
mod genesis;
mod open_session;
mod place;
mod place_gang;
mod preempt;
mod publish_revocations;
mod refuse;
mod register_node;
mod remove_node;
mod return_;
mod revoke;
mod set_prices;
mod set_project;
mod set_standing;
mod stock_prekeys;
mod submit_batch;
mod submit_gang;
mod submit_specs;
mod update_node;

pub use ack_outbox::AckOutbox;
pub use ack_results::AckResults;
pub use attach_granter::AttachGranter;
pub use cancel::Cancel;
pub use complete_batch::{BatchSignature, CompleteBatch, Completion, Moved};
pub use detach_granter::DetachGranter;
pub use expire::{Expire, Forgotten};
pub use genesis::Genesis;
pub use open_session::OpenSession;
pub use place::{Place, Placement};
pub use preempt::{MAX_PREEMPTIONS, PREEMPT_PAUSE, Preempt};
pub use publish_revocations::{MAX_REVOCATIONS_BYTES, PublishRevocations};
pub use refuse::Refuse;
pub use register_node::RegisterNode;
pub use remove_node::RemoveNode;
pub use return_::{Return, ReturnReason};
pub use revoke::{Revoke, Revoked};
pub use set_prices::{MAX_DATED_PRICES, NodePrices, SetPrices};
pub use set_project::SetProject;
pub use set_standing::SetStanding;
pub use stock_prekeys::StockPrekeys;
pub use submit_batch::{SubmitBatch, Submitted};
pub use update_node::UpdateNode;

/// Most items of one batch order. Source: docs/design/spine.md, "One call, hop by hop".
pub const MAX_BATCH: usize = 512;
/// Most argument blobs of one task. Source: 64 × 40 B stays under a tenth of a row.
pub const MAX_REFS: usize = 64;
/// Most items of an order that the leader itself proposes (returns, expiries, placements).
pub(crate) const MAX_LEADER_BATCH: usize = 8192;
