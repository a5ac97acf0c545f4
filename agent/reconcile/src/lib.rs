//! farlane-reconcile
