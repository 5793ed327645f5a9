//! Wall-clock time as the engine stores and shows it. This module formats and parses; it never reads a clock
//! (layers 0 to 3 are handed their time by a [`Clock`]).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A moment, in milliseconds since the Unix epoch. On every wire it is RFC 3339 in UTC with a `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The day, in UTC.
    #[must_use]
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(24 * 60 * 60 * 1_000))
    }
}

/// A day in UTC, counted from 1 January 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

/// Where the engine gets the time it stamps on what it stores. Replace it to make a program's times repeatable.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Out of jiff's range only for times that no store of ours can have written; shown as the epoch.
        let moment = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        write!(f, "{moment:.3}")
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time", "description": "A moment, in UTC" })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(moment.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_rfc_3339_in_utc_with_z_and_survives_the_wire() {
        let moment = Timestamp(1_795_545_983_042);
        assert_eq!(moment.to_string(), "2026-11-24T18:46:23.042Z");
        let wire = serde_json::to_string(&moment).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&wire).unwrap(), moment);
    }
}
