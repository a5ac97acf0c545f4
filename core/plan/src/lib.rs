//! farlane-plan
