//! farlane-python
