//! Running another program: captured to a log, timed, bounded, ended with its children.
