//! How large what people make may be. Figures only: whoever takes something in asks for the one that counts.

/// How large messages, rooms and pages may be. What was made under other bounds stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Bytes of UTF-8 in a message's text. 64 KiB by default, and at most 1 MiB.
    pub text_bytes: usize,
    /// Members of a room. 1,000 by default, which is also the most.
    pub room_members: u32,
    /// Characters of a room's name. 100 by default, which is also the most.
    pub room_name_chars: usize,
    /// Messages in one page of a history or of what was found. 200 by default, and at most 1,000.
    pub page: u32,
}

impl Bounds {
    /// The most that each can be.
    pub const CEILING: Self = Self {
        text_bytes: 1 << 20,
        room_members: 1_000,
        room_name_chars: 100,
        page: 1_000,
    };

    /// The nearest that can be: nothing above its ceiling, and nothing zero.
    pub(crate) fn within(self) -> Self {
        let Self {
            text_bytes,
            room_members,
            room_name_chars,
            page,
        } = Self::CEILING;
        Self {
            text_bytes: self.text_bytes.clamp(1, text_bytes),
            room_members: self.room_members.clamp(1, room_members),
            room_name_chars: self.room_name_chars.clamp(1, room_name_chars),
            page: self.page.clamp(1, page),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            text_bytes: 64 << 10,
            page: 200,
            ..Self::CEILING
        }
    }
}
