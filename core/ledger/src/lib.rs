//! Metering and charges, in integers.
//!
//! Owns what one attempt used ([`Usage`]), what it costs ([`cost`]), how usage folds into charges
//! ([`fold`]) and what a task's receipt says ([`Receipt`]). Leaves to others where rows lie
//! (farlane-store) and who is asked to pay.
//!
//! ```text
//! attempt ends ─▶ Usage ─┬▶ usage row (one an attempt, the evidence)
//!                        └▶ fold by (project, node, price, minute) ─▶ Charge ─▶ money, rounded once
//! ```

mod charge;
mod price;
mod receipt;
mod usage;

pub use charge::{Charge, ChargeKey, fold};
pub use price::{CoreTime, PriceBook, cost};
pub use receipt::{Receipt, ReceiptLine};
pub use usage::{OutboxId, Outcome, Usage};
