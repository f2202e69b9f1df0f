//! Which build this is.

/// The version of the workspace, such as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, if the build said so (environment variable `SELVEDGE_COMMIT`).
pub const COMMIT: Option<&str> = option_env!("SELVEDGE_COMMIT");
