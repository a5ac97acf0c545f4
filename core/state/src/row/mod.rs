//! What the rows hold, and their keys.
//!
//! Owns the encodings: hand-written for what is written once a task, postcard for what is rare.
//! Every row opens with a version byte or sits in a table whose version the cluster row names.

mod attempt;
mod envelope;
mod finished;
pub mod keys;
mod node;
mod outbox;
mod session;

pub use attempt::AttemptRow;
pub use envelope::TaskEnvelopeRow;
pub(crate) use envelope::write as write_envelope;
pub use finished::{BatchRow, Cursor, FinishedTask, ResultRow};
pub(crate) use node::ContextRow;
pub use node::{NodeRow, RevocationsRow};
pub use outbox::{MAX_OUTBOX, OutboxEvent, OutboxKey, Usage};
pub(crate) use session::{ClusterRow, MarksRow, SessionRow};

#[cfg(test)]
mod tests {
    use farlane_model::{PolicyName, Quote, TermKind};
    use farlane_units::{MicroGramsCo2, Micros, UsdPicos};

    /// A quote's bytes.
    pub fn quote() -> Vec<u8> {
        let quote = Quote {
            run: Micros(5),
            emits: Some(MicroGramsCo2(6)),
            prices: PolicyName::Fast.prices(),
            terms: vec![(TermKind::Run, UsdPicos(7))],
            runner_up: None,
        };
        quote.to_bytes()
    }
}
