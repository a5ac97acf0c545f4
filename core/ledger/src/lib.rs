//! farlane-ledger
