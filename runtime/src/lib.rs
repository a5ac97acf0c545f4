//! farlane-runtime
