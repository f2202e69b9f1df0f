//! End to end: the real binaries, real sockets.

mod certs;
