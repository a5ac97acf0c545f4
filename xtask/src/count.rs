//! Reads how many tests a runner says passed.
