//! Where things lie: the repository, the one target folder, the cache folder.
