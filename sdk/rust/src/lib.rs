//! farlane
