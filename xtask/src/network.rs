//! A Farlane network of real processes on this machine.
