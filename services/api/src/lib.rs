//! farlane-api
