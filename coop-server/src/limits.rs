//! How much anybody may ask of the server.

use std::net::IpAddr;

/// How much anybody may ask of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Sockets of one user.
    pub sockets_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sockets_per_user: 20 }
    }
}

/// Why a limit was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// There is no limit of this name.
    #[error("there is no limit called {name}; did you mean {suggestion}?")]
    UnknownName {
        /// The name that was given.
        name: String,
        /// The limit whose name is most like it.
        suggestion: &'static str,
    },
    /// The limit cannot be this.
    #[error("{name} must be {wanted}, not {value:?}")]
    BadValue {
        /// The limit.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it may be, as words.
        wanted: &'static str,
    },
}

impl Limits {
    /// Without rates and counts, for load tests on loopback. Sizes and times stay.
    #[must_use]
    pub fn off() -> Self {
        Self {
            sockets_per_user: u32::MAX,
        }
    }

    /// Sets a limit by its name.
    ///
    /// # Errors
    /// For a name or a value that is none.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        if name != "sockets_per_user" {
            return Err(LimitError::UnknownName {
                name: name.to_owned(),
                suggestion: "sockets_per_user",
            });
        }
        self.sockets_per_user = value.parse().map_err(|_| LimitError::BadValue {
            name: "sockets_per_user",
            value: value.to_owned(),
            wanted: "a number above zero, or off",
        })?;
        Ok(())
    }

    /// All limits by name, as [`set`](Self::set) reads them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        [("sockets_per_user", self.sockets_per_user.to_string())].into_iter()
    }
}

/// Whether this is the address of a proxy, or of a network of them.
pub(crate) fn is_proxy(text: &str) -> bool {
    let (address, bits) = text.split_once('/').unwrap_or((text, "0"));
    match (address.parse(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}
