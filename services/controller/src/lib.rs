//! farlane-controller
