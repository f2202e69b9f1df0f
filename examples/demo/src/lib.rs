//! The demo's tiny apps, its load generator, and the processes they run in.
