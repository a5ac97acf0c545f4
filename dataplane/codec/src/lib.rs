//! farlane-codec
