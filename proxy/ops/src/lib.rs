//! What both daemons need: logging, admin server, drain, listeners.
