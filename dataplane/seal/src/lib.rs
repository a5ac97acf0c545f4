//! farlane-seal
