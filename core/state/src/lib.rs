//! farlane-state
