//! The command that people type, and every main.
