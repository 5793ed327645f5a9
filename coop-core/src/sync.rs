//! Locks that do not spread a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What our mutexes guard is changed in steps that cannot panic halfway, so a poisoned one is still whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
