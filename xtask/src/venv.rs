//! Python environments: the tools', the tests', the demo's, the bench's.
