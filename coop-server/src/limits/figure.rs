//! What a limit may be, and how an operator writes one: `10s`, `256KiB`, `20`, `10/1s burst 30`, and `off` where there may
//! be none.
//!
//! It knows no limit by name.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// How often something may happen: after a pause `burst` times at once, and then once every `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one more is earned. Zero: there is no limit.
    pub every: Duration,
    /// The most that can be saved up.
    pub burst: NonZeroU32,
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self {
        every: Duration::ZERO,
        burst: NonZeroU32::MIN,
    };

    /// `count` each `period` after a burst of `burst`; no limit if one of them is zero.
    #[must_use]
    pub const fn new(count: u32, period: Duration, burst: u32) -> Self {
        match (NonZeroU32::new(burst), period.checked_div(count)) {
            (Some(burst), Some(every)) => Self { every, burst },
            _ => Self::OFF,
        }
    }
}

/// Something that a limit may be.
pub(super) trait Figure: Sized {
    /// What is wanted, for who wrote something else.
    const WANTED: &'static str;

    fn read(text: &str) -> Option<Self>;

    fn written(&self) -> String;
}

impl Figure for Duration {
    const WANTED: &'static str = "a time above zero, such as 1500ms, 10s, 5m or 24h";

    fn read(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let milliseconds = digits.parse::<u32>().ok().filter(|number| *number > 0)?;
        Some(Self::from_millis(u64::from(milliseconds) * unit))
    }

    fn written(&self) -> String {
        match self.as_millis() {
            whole if whole % 3_600_000 == 0 => format!("{}h", whole / 3_600_000),
            whole if whole % 60_000 == 0 => format!("{}m", whole / 60_000),
            whole if whole % 1_000 == 0 => format!("{}s", whole / 1_000),
            milliseconds => format!("{milliseconds}ms"),
        }
    }
}

/// A size in bytes.
impl Figure for usize {
    const WANTED: &'static str = "a size above zero, such as 4096, 16KiB or 1MiB";

    fn read(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            _ => return None,
        };
        let number = digits.parse::<Self>().ok()?;
        number.checked_mul(unit).filter(|bytes| *bytes > 0)
    }

    fn written(&self) -> String {
        match self {
            bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
            bytes => bytes.to_string(),
        }
    }
}

/// A number of things; as many as there may be is no limit.
impl Figure for u32 {
    const WANTED: &'static str = "a number above zero, or off";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::MAX),
            number => number.parse().ok().filter(|number| *number > 0),
        }
    }

    fn written(&self) -> String {
        match *self {
            Self::MAX => "off".to_owned(),
            number => number.to_string(),
        }
    }
}

impl Figure for Rate {
    const WANTED: &'static str = "a rate, such as 10/1s burst 30 or 1/5m burst 5, or off";

    fn read(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::OFF);
        }
        let (rate, burst) = text.split_once(" burst ")?;
        let (count, period) = rate.split_once('/')?;
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        let burst = burst.trim().parse().ok().filter(|burst| *burst > 0)?;
        let period = match period.trim() {
            unit @ ("s" | "m" | "h") => Duration::read(&format!("1{unit}"))?,
            period => Duration::read(period)?,
        };
        Some(Self::new(count, period, burst)).filter(|rate| !rate.every.is_zero())
    }

    fn written(&self) -> String {
        if self.every.is_zero() {
            return "off".to_owned();
        }
        let hour = Duration::from_secs(3_600).as_nanos();
        // The shortest period that holds a whole number of them; an hour holds about as many of any others.
        let periods = [1_u64, 10, 60, 3_600].map(Duration::from_secs);
        let whole = periods.iter().find_map(|period| {
            let count = (period.as_nanos() + self.every.as_nanos() / 2) / self.every.as_nanos();
            let exact = u32::try_from(count).ok().and_then(|count| period.checked_div(count));
            (exact == Some(self.every)).then(|| format!("{count}/{}", period.written()))
        });
        let rate = whole.unwrap_or_else(|| match self.every.as_nanos() % 1_000_000 {
            0 => format!("1/{}", self.every.written()),
            _ => format!("{}/1h", hour / self.every.as_nanos()),
        });
        format!("{rate} burst {}", self.burst)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<T: Figure + PartialEq + fmt::Debug>(text: &str, value: T, written: &str) {
        assert_eq!(T::read(text).as_ref(), Some(&value), "{text}");
        assert_eq!(value.written(), written);
        assert_eq!(T::read(written), Some(value), "{written}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        comes_back("90", Duration::from_secs(90), "90s");
        comes_back("1500ms", Duration::from_millis(1_500), "1500ms");
        comes_back("24h", Duration::from_secs(86_400), "24h");
        comes_back("4096", 4_096_usize, "4KiB");
        comes_back("1MiB", 1_048_576_usize, "1MiB");
        comes_back("300", 300_usize, "300");
        comes_back("off", u32::MAX, "off");
        comes_back("20", 20_u32, "20");
        comes_back("off", Rate::OFF, "off");
        comes_back(
            "10/s burst 30",
            Rate::new(10, Duration::from_secs(1), 30),
            "10/1s burst 30",
        );
        comes_back(
            "60/s burst 120",
            Rate::new(60, Duration::from_secs(1), 120),
            "60/1s burst 120",
        );
        comes_back(
            "3/10s burst 10",
            Rate::new(3, Duration::from_secs(10), 10),
            "3/10s burst 10",
        );
        comes_back(
            "1/5m burst 5",
            Rate::new(1, Duration::from_secs(300), 5),
            "12/1h burst 5",
        );
        comes_back(
            "1/7m burst 5",
            Rate::new(1, Duration::from_secs(420), 5),
            "1/7m burst 5",
        );
    }

    #[test]
    fn what_is_nothing() {
        for text in ["", "0", "-1", "1.5", "x", "1y", "99999999999999999999", "1 s"] {
            assert_eq!(Duration::read(text), None, "{text}");
            assert_eq!(usize::read(text), None, "{text}");
            assert_eq!(u32::read(text), None, "{text}");
        }
        for text in [
            "5",
            "5/s",
            "5/s burst",
            "5/s burst 0",
            "0/s burst 5",
            "5/0s burst 5",
            "5/d burst 5",
        ] {
            assert_eq!(Rate::read(text), None, "{text}");
        }
    }
}
