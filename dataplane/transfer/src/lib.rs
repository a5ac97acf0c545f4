//! farlane-transfer
