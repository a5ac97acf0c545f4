//! farlane-consensus
