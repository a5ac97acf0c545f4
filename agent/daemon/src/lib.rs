//! farlane-daemon
