//! The sidecar: the story of a request.
