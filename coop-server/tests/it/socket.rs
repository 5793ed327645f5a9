//! The socket itself.
