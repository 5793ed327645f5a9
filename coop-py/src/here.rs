//! What belongs to the process that made it.

use std::process;

/// A value that is dropped in the process it was made in, and in a forked child is left as it is: there the threads are
/// gone that it would wait for, and its locks may be held for ever.
pub(crate) struct Here<T> {
    value: Option<T>,
    process: u32,
}

impl<T> Here<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Some(value),
            process: process::id(),
        }
    }

    /// The value. It is there until this is dropped.
    pub(crate) fn get(&self) -> &T {
        match &self.value {
            Some(value) => value,
            None => unreachable!("taken by drop alone"),
        }
    }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        if process::id() != self.process {
            std::mem::forget(self.value.take());
        }
    }
}
