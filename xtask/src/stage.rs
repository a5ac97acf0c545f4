//! A list of timed steps, their table and their failures.
