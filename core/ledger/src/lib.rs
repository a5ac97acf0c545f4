//! Metering, prices, carbon and charges, in integers.
//!
//! Owns what one attempt used ([`Usage`]), what a provider asks and since when ([`PriceBook`]), what that must at
//! least be ([`derive`]), what it costs ([`cost`]) and emits ([`emitted`]), how usage folds into charges ([`fold`])
//! and what a task's receipt says ([`Receipt`]). Leaves to others where rows lie (farlane-store) and who is asked
//! to pay.
//!
//! ```text
//! attempt ends ─▶ Usage ─┬▶ usage row (one an attempt, the evidence)
//!                        └▶ fold by (project, node, price, minute) ─▶ Charge ─▶ money, rounded once
//! ```

mod book;
mod calendar;
mod carbon;
mod charge;
mod check;
mod decimal;
mod derive;
mod price;
mod receipt;
mod revise;
mod usage;

pub use book::{Draft, EGRESS_DEFAULT, Entry, MAX_ENTRIES, MAX_PRICE, PriceBook, Rate, Scope};
pub use calendar::{date, moment, moment_at};
pub use carbon::{
    BadReading, CPU, CarbonTable, Intensity, MAX_INTENSITY, MAX_READINGS, Origin, PowerModel,
    STANDS_IN, emitted,
};
pub use charge::{Charge, ChargeKey, fold};
pub use check::{Fault, Wrong, check};
pub use decimal::{BadDecimal, decimal};
pub use derive::{Derived, LIFE_HOURS, LOAD, Ownership, PUE, derive};
pub use price::{CoreTime, cost, cost_with};
pub use receipt::{Receipt, ReceiptLine};
pub use revise::Refused;
pub use usage::{OutboxId, Outcome, Usage};
