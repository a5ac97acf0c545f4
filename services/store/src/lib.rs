//! farlane-store
