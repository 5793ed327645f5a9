//! HTTP itself.
