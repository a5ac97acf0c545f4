//! farlane-server
